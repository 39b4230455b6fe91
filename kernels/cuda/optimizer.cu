// The update of all weights: one thread per weight, bound by memory. Outputs may be inputs.
#define ELEMENT const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; if (i >= n) return

// g = scale * dw + decay * w;  v = momentum * v + g;  w -= rate * (v, or g + momentum * v).
extern "C" __global__ void sgd(const float* w, const float* dw, const float* velocity, float rate, float momentum, int nesterov,
                               float decay, float scale, float* new_w, float* new_velocity, long long n) {
  ELEMENT;
  const float old = w[i], g = scale * dw[i] + decay * old, v = momentum * velocity[i] + g;
  new_w[i] = old - rate * (nesterov ? g + momentum * v : v);
  new_velocity[i] = v;
}

// g = scale * dw;  m = beta1 m + rest1 g;  v = beta2 v + rest2 g^2;  w -= rate * (m / (sqrt(v) * unbias + epsilon) + decay * w).
// rest = 1 - beta comes rounded once: 1 - float(0.999) is off by 1e-5.
extern "C" __global__ void adam(const float* w, const float* dw, const float* mean, const float* square, float rate, float beta1, float rest1,
                                float beta2, float rest2, float epsilon, float decay, float scale, float unbias, float* new_w,
                                float* new_mean, float* new_square, long long n) {
  ELEMENT;
  const float g = scale * dw[i], m = beta1 * mean[i] + rest1 * g, v = beta2 * square[i] + rest2 * g * g, old = w[i];
  new_w[i] = old - rate * (m / (sqrtf(v) * unbias + epsilon) + decay * old);
  new_mean[i] = m;
  new_square[i] = v;
}
