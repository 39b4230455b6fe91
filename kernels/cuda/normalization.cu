// Batch and layer normalisation. In double from the mean on, so that a mean much larger than the deviation costs no digits.
#define ELEMENT const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x; if (t >= n) return

// y = (x - mean) * scale + beta per channel: a thread per element.
extern "C" __global__ void normalize(const float* __restrict__ x, const double* __restrict__ mean, const double* __restrict__ scale,
                                     const float* __restrict__ beta, int c, float* __restrict__ y, long long n) {
  ELEMENT;
  const int k = t % c;
  y[t] = (x[t] - mean[k]) * scale[k] + beta[k];
}

// parts[span][2][c]: the sums of dy and of dy * x^ over a span of positions. STATISTIC float: mean and inverse are those of positions,
// double: those of channels. A thread per span and channel.
extern "C" __global__ void gradient_sums(const float* __restrict__ dy, const float* __restrict__ x, const STATISTIC* __restrict__ mean,
                                         const STATISTIC* __restrict__ inverse, long long positions, int c, int span,
                                         double* __restrict__ parts, long long n) {
  ELEMENT;
  const int k = t % c;
  const long long s = t / c, end = min(positions, (s + 1) * span);
  double plain = 0, weighted = 0;
  for (long long p = s * span; p < end; p++) {
    const long long of = sizeof(STATISTIC) == sizeof(float) ? p : k;
    const double g = dy[p * c + k];
    plain += g;
    weighted += g * ((x[p * c + k] - (double)mean[of]) * inverse[of]);
  }
  parts[s * 2 * c + k] = plain;
  parts[(s * 2 + 1) * c + k] = weighted;
}

// dx = scale * (dy - shift - x^ * slope) per channel: a thread per element.
extern "C" __global__ void normalize_dx(const float* __restrict__ dy, const float* __restrict__ x, const double* __restrict__ mean,
                                        const double* __restrict__ inverse, const double* __restrict__ scale,
                                        const double* __restrict__ shift, const double* __restrict__ slope, int c, float* __restrict__ dx,
                                        long long n) {
  ELEMENT;
  const int k = t % c;
  dx[t] = scale[k] * (dy[t] - shift[k] - (x[t] - mean[k]) * inverse[k] * slope[k]);
}

// A thread per position.
extern "C" __global__ void layer_norm(const float* __restrict__ x, const float* __restrict__ gamma, const float* __restrict__ beta, int c,
                                      float epsilon, float* __restrict__ y, float* __restrict__ means, float* __restrict__ inverses,
                                      long long n) {
  ELEMENT;
  const float* from = x + t * c;
  double mean = 0, square = 0;
  for (int k = 0; k < c; k++) mean += from[k];
  mean /= c;
  for (int k = 0; k < c; k++) square += (from[k] - mean) * (from[k] - mean);
  const double inverse = 1 / sqrt(square / c + epsilon);
  means[t] = mean;
  inverses[t] = inverse;
  for (int k = 0; k < c; k++) y[t * c + k] = (from[k] - mean) * inverse * gamma[k] + beta[k];
}

extern "C" __global__ void layer_norm_dx(const float* __restrict__ dy, const float* __restrict__ x, const float* __restrict__ means,
                                         const float* __restrict__ inverses, const float* __restrict__ gamma, int c, float* __restrict__ dx,
                                         long long n) {
  ELEMENT;
  const float *d = dy + t * c, *from = x + t * c;
  const double mean = means[t], inverse = inverses[t];
  double shift = 0, slope = 0;
  for (int k = 0; k < c; k++) {
    const double g = (double)d[k] * gamma[k];
    shift += g;
    slope += g * (from[k] - mean) * inverse;
  }
  shift /= c, slope /= c;
  for (int k = 0; k < c; k++) dx[t * c + k] = inverse * ((double)d[k] * gamma[k] - shift - (from[k] - mean) * inverse * slope);
}
