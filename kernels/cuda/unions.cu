// The union of two sorted lists of positions. A thread per entry finds by bisection how many of the other list lie before it.

// The number of positions of the list (n, 2) that lie before (row, column).
__device__ __forceinline__ int lower_bound(const int* __restrict__ list, int n, int row, int column) {
  int low = 0, high = n;
  while (low < high) {
    const int middle = (low + high) / 2, r = list[2 * middle];
    if (r < row || (r == row && list[2 * middle + 1] < column)) low = middle + 1;
    else high = middle;
  }
  return low;
}

// fresh[j] = whether entry j of the second list is none of the first.
extern "C" __global__ void find_new(const int* __restrict__ first, int n, const int* __restrict__ second, int* __restrict__ fresh,
                                    long long k) {
  const long long j = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (j >= k) return;
  const int row = second[2 * j], column = second[2 * j + 1], i = lower_bound(first, n, row, column);
  fresh[j] = i == n || first[2 * i] != row || first[2 * i + 1] != column;
}

// Puts the entries of both lists into their places; upto[j] = the sum of fresh[0 .. j]. A position is written by its first owner.
extern "C" __global__ void merge(const int* __restrict__ first, int n, const int* __restrict__ second, int k, const int* __restrict__ fresh,
                                 const int* __restrict__ upto, int* __restrict__ positions, int* __restrict__ in_first,
                                 int* __restrict__ in_second, long long both) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= both) return;
  const int* own = t < n ? first + 2 * t : second + 2 * (t - n);
  int slot;
  if (t < n) {
    const int j = lower_bound(second, k, own[0], own[1]);
    slot = t + (j ? upto[j - 1] : 0);
    in_first[t] = slot;
  } else {
    const int j = t - n;
    slot = lower_bound(first, n, own[0], own[1]) + upto[j] - fresh[j];
    in_second[j] = slot;
    if (!fresh[j]) return;
  }
  positions[2 * slot] = own[0];
  positions[2 * slot + 1] = own[1];
}
