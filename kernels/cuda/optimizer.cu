// g = scale * dw + decay * w;  v = momentum * v + g;  w -= rate * (v, or g + momentum * v).  One pass, bound by memory.
extern "C" __global__ void sgd(const float* w, const float* dw, const float* velocity, float rate, float momentum, int nesterov,
                               const float* decays, float decay, float scale, float* new_w, float* new_velocity, long long n) {
  const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (i >= n) return;
  const float old = w[i], g = scale * dw[i] + (decays ? decays[i] : decay) * old, v = momentum * velocity[i] + g;
  new_w[i] = old - rate * (nesterov ? g + momentum * v : v);
  new_velocity[i] = v;
}
