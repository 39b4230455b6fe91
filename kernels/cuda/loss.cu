// Softmax with cross-entropy: a few classes per event, so a thread per event.
extern "C" __global__ void softmax_cross_entropy(const float* __restrict__ logits, const long long* __restrict__ labels, int n, int classes,
                                                 float* __restrict__ losses, float* __restrict__ p) {
  const int e = blockIdx.x * blockDim.x + threadIdx.x;
  if (e >= n) return;
  const float* row = logits + (size_t)e * classes;
  float top = row[0], sum = 0;
  for (int c = 1; c < classes; c++) top = row[c] > top || row[c] != row[c] ? row[c] : top;         // a NaN stays one
  for (int c = 0; c < classes; c++) sum += expf(row[c] - top);
  const float log_sum = logf(sum);
  for (int c = 0; c < classes; c++) p[(size_t)e * classes + c] = expf(row[c] - top - log_sum);
  losses[e] = log_sum - (row[labels[e]] - top);
}

// The gradient of the summed losses: p - one_hot(labels).
extern "C" __global__ void softmax_cross_entropy_backward(const float* __restrict__ p, const long long* __restrict__ labels, int n,
                                                          int classes, float* __restrict__ dlogits) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n * classes) dlogits[i] = p[i] - (labels[i / classes] == i % classes ? 1.f : 0.f);
}
