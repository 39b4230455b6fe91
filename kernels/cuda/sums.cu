// Sums over the positions of arrays (images, positions, C), in double: spans of positions first, then the spans in order.

// parts[image][span][c] = the sum over the span of x, of x - mean[c], or of its square. A thread per number of parts.
extern "C" __global__ void span_sums(const float* __restrict__ x, const double* __restrict__ mean, int squares, long long positions, int c,
                                     int spans, int span, double* __restrict__ parts, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int channel = t % c, s = t / c % spans;
  const long long image = t / c / spans, end = min(positions, (s + 1LL) * span);
  const double middle = mean ? mean[channel] : 0;
  double sum = 0;
  for (long long p = (long long)s * span; p < end; p++) {
    const double d = x[(image * positions + p) * c + channel] - middle;
    sum += squares ? d * d : d;
  }
  parts[t] = sum;
}

// sums[image][c] = the sum over spans of parts[image][span][c].
extern "C" __global__ void add_spans(const double* __restrict__ parts, int spans, int c, double* __restrict__ sums, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const double* from = parts + t / c * spans * c + t % c;
  double sum = 0;
  for (int s = 0; s < spans; s++) sum += from[(long long)s * c];
  sums[t] = sum;
}
