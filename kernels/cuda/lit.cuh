// What the kernels on lit positions share: positions (n, 2) in row-major order, and where the rows of such a list begin.
#pragma once

// The place of (row, column) in the list `at`, whose rows begin at rows[row], or -1.
__device__ __forceinline__ int find(const int* __restrict__ at, const int* __restrict__ rows, int row, int column) {
  const int end = rows[row + 1];
  int low = rows[row], high = end;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (at[2 * middle + 1] < column) low = middle + 1;
    else high = middle;
  }
  return low < end && at[2 * low + 1] == column ? low : -1;
}

// The activation of a block: ELU, or none.
__device__ __forceinline__ float activate_or_not(float z, float alpha, int linear) { return linear ? z : activate(z, alpha); }
__device__ __forceinline__ float slope_or_one(float y, float alpha, int linear) { return linear ? 1.f : slope(y, alpha); }
