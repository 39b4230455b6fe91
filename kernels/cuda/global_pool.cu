// Pooling over whole images (images, positions, C); the mean's sums are in sums.cu.

// best, where [image][span][c]: the maximum of a span of positions, and where it is; a thread for each.
extern "C" __global__ void span_maxima(const float* __restrict__ x, long long positions, int c, int spans, int span, float* __restrict__ best,
                                       int* __restrict__ where, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int channel = t % c, s = t / c % spans;
  const long long image = t / c / spans, end = min(positions, (s + 1LL) * span), start = (long long)s * span;
  const float* from = x + image * positions * c + channel;
  float top = from[start * c];
  int at = start;
  for (long long p = start + 1; p < end; p++)
    if (from[p * c] > top) top = from[p * c], at = p;                   // strict: the first of equals wins
  best[t] = top;
  where[t] = at;
}

// y, argmax [image][c]: the largest of the spans, the first of equals.
extern "C" __global__ void largest_span(const float* __restrict__ best, const int* __restrict__ where, int c, int spans, float* __restrict__ y,
                                        int* __restrict__ argmax, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const long long first = t / c * spans * c + t % c;
  long long at = first;
  for (int s = 1; s < spans; s++)
    if (best[first + (long long)s * c] > best[at]) at = first + (long long)s * c;
  y[t] = best[at];
  argmax[t] = where[at];
}

// dx = scale * dy of the image and channel: a thread per element.
extern "C" __global__ void spread(const float* __restrict__ dy, long long positions, int c, float scale, float* __restrict__ dx, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t < n) dx[t] = dy[t / c / positions * c + t % c] * scale;
}

// dx = dy at the position argmax, else 0.
extern "C" __global__ void put_at(const float* __restrict__ dy, const int* __restrict__ argmax, long long positions, int c,
                                  float* __restrict__ dx, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const long long from = t / c / positions * c + t % c;
  dx[t] = argmax[from] == t / c % positions ? dy[from] : 0.f;
}
