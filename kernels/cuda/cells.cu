// The input windows of listed cells: copied out, or filled. Rows of cells count on through the images.

// out[cell] = the window of each cell, row by row: zeros outside the image. A thread per float.
extern "C" __global__ void cell_windows(const float* __restrict__ x, int h, int w, int c, int oh, const int* __restrict__ cells, int ph, int pw,
                                        int kh, int kw, int top, int left, float* __restrict__ out, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int k = t % c, b = t / c % (pw + kw - 1), a = t / c / (pw + kw - 1) % (ph + kh - 1), cell = t / c / (pw + kw - 1) / (ph + kh - 1);
  const int row = cells[2 * cell] % oh * ph - top + a, column = cells[2 * cell + 1] * pw - left + b;
  const long long image = cells[2 * cell] / oh;
  out[t] = row >= 0 && row < h && column >= 0 && column < w ? x[((image * h + row) * w + column) * c + k] : 0.f;
}

// x[row][column] = values[row class][column class] at all pixels that the windows of the cells hold. A thread per cell, pixel and channel;
// neighbouring windows write the same numbers where they overlap. values (rows, columns, c).
extern "C" __global__ void fill_windows(float* __restrict__ x, int h, int w, int c, int oh, const int* __restrict__ cells, int ph, int pw,
                                        int kh, int kw, int top, int left, const float* __restrict__ values, int columns,
                                        const int* __restrict__ row_class, const int* __restrict__ column_class, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int k = t % c, b = t / c % (pw + kw - 1), a = t / c / (pw + kw - 1) % (ph + kh - 1), cell = t / c / (pw + kw - 1) / (ph + kh - 1);
  const int row = cells[2 * cell] % oh * ph - top + a, column = cells[2 * cell + 1] * pw - left + b;
  const long long image = cells[2 * cell] / oh;
  if (row >= 0 && row < h && column >= 0 && column < w)
    x[((image * h + row) * w + column) * c + k] = values[(row_class[row] * columns + column_class[column]) * c + k];
}
