// Runs CUDA kernels as C++ on the CPU: one thread block at a time, one fiber per CUDA thread, on one core.
//
// A fiber runs until it waits at a barrier or a shuffle, or ends; then the next one runs, in rising or in falling order of threads, and a
// warp as far as it can without the others, so that a missing barrier lets someone read what is not there yet, or is there no longer.
// What a GPU leaves undefined is an error here: a __syncthreads that not all threads reach, or that they reach at different lines; a
// shuffle or warp barrier that not all lanes reach; a place beyond the end of a shared array; a vector that is not aligned.
// Shared memory starts out as NaN in every block.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__) && !defined(EMULATE_WITH_UCONTEXT)
#define EMULATE_WITH_ASSEMBLY 1
#else
#include <ucontext.h>
#endif
#include <utility>

#define EMULATOR 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct uint3 { unsigned x, y, z; };
typedef uint3 dim3;
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };

namespace emu {
enum State { RUN, BARRIER, WARP, DONE };
enum { STACK = 256 * 1024, MOST = 1024 };                  // bytes of a fiber's stack (touched pages alone cost memory), threads

struct Fiber {
#ifdef EMULATE_WITH_ASSEMBLY
  void* stack_pointer;
#else
  ucontext_t context;
#endif
  uint3 index;
  unsigned number;
  State state;
  int line;                                                // of the barrier it waits at
  uint64_t exchange;                                       // what it gives to a shuffle
};

static Fiber fibers[MOST];
static Fiber* current;
static char* stacks;
static uint3 block_index;
static dim3 block_size, grid_size;
static unsigned long long block_number;                    // over all launches: tells a shared array that a new block has begun
static char* dynamic_shared;
static size_t dynamic_bytes;
static void (*body)();
static char error[400];

// ---------------------------------------------------------------------------------------------- fibers
#ifdef EMULATE_WITH_ASSEMBLY
// Saves the registers that a call preserves on this stack, and goes on with those on the other one.
extern "C" void emulator_switch(void** save, void* to);
asm(R"(.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch, @function
emulator_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size emulator_switch, .-emulator_switch
)");
static void* scheduler;
static void to_scheduler() { emulator_switch(&current->stack_pointer, scheduler); }
static void to_fiber() { emulator_switch(&scheduler, current->stack_pointer); }
#else
static ucontext_t scheduler;
static void to_scheduler() { swapcontext(&current->context, &scheduler); }
static void to_fiber() { swapcontext(&scheduler, &current->context); }
#endif

static void entry() {
  body();
  current->state = DONE;
  to_scheduler();
}

static void prepare(Fiber& fiber) {
  char* stack = stacks + (size_t)fiber.number * STACK;
#ifdef EMULATE_WITH_ASSEMBLY
  void** top = (void**)(stack + STACK - 64);               // a multiple of 16: after the return to entry, 8 off it, as behind a call
  top[0] = (void*)entry;
  fiber.stack_pointer = top - 6;
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stack;
  fiber.context.uc_stack.ss_size = STACK;
  fiber.context.uc_link = &scheduler;
  makecontext(&fiber.context, entry, 0);
#endif
}

// Ends the launch: the message goes to the caller, and no fiber runs again.
template <class... A> void fail(const char* format, A... values) {
  if (!error[0]) {
    int n = snprintf(error, sizeof error, format, values...);
    if (n > 0 && n < (int)sizeof error)
      snprintf(error + n, sizeof error - n, " (thread %u of block %u, %u, %u)", current ? current->number : 0, block_index.x,
               block_index.y, block_index.z);
  }
  if (current) to_scheduler();
}

static void wait(State state, int line) {
  current->state = state;
  current->line = line;
  to_scheduler();
}

// Lets the lanes from `first` on go if all of them wait for each other.
static bool release_warp(unsigned first, unsigned threads) {
  unsigned end = first + 32 < threads ? first + 32 : threads, waiting = 0;
  for (unsigned i = first; i < end; i++) waiting += fibers[i].state == WARP && fibers[i].line == fibers[first].line;
  if (waiting < end - first) return false;
  for (unsigned i = first; i < end; i++) fibers[i].state = RUN;
  return true;
}

static void explain(unsigned threads) {
  unsigned count[4] = {0, 0, 0, 0}, other = 0;
  int line = 0;
  for (unsigned i = 0; i < threads; i++) {
    count[fibers[i].state]++;
    if (fibers[i].state == BARRIER || fibers[i].state == WARP) {
      if (!line) line = fibers[i].line;
      other += fibers[i].line != line;
    }
  }
  current = nullptr;
  fail("divergent barrier: of %u threads %u wait at __syncthreads, %u at a warp barrier or shuffle (line %d; %u elsewhere) and %u have "
       "ended", threads, count[BARRIER], count[WARP], line, other, count[DONE]);
}

static bool run_block(unsigned threads, bool falling) {
  for (unsigned i = 0; i < threads; i++) {
    Fiber& f = fibers[i];
    f.number = i;
    f.index = {i % block_size.x, i / block_size.x % block_size.y, i / (block_size.x * block_size.y)};
    f.state = RUN;
    prepare(f);
  }
  if (dynamic_bytes) memset(dynamic_shared, 0xff, dynamic_bytes);
  const unsigned warps = (threads + 31) / 32;
  for (;;) {
    bool moved = false;
    for (unsigned w = 0; w < warps; w++) {                 // a warp goes as far as it can alone, while the others stand still
      const unsigned first = 32 * (falling ? warps - 1 - w : w), lanes = first + 32 < threads ? 32 : threads - first;
      do {
        for (unsigned i = 0; i < lanes; i++) {
          Fiber& f = fibers[first + (falling ? lanes - 1 - i : i)];
          if (f.state != RUN) continue;
          moved = true;
          current = &f;
          to_fiber();
          if (error[0]) return false;
        }
        current = nullptr;
      } while (fibers[first].state == WARP && release_warp(first, threads));
    }
    unsigned done = 0, barrier = 0;
    for (unsigned i = 0; i < threads; i++) {
      done += fibers[i].state == DONE;
      barrier += fibers[i].state == BARRIER && fibers[i].line == fibers[0].line;
    }
    if (done == threads) return true;
    if (barrier == threads)
      for (unsigned i = 0; i < threads; i++) fibers[i].state = RUN;
    else if (!moved)
      return explain(threads), false;
  }
}

template <class... A, size_t... I> void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(*(A*)arguments[I]...);
}

// Runs `kernel` on a grid; arguments point to values, as for cuLaunchKernel. Returns "" or what went wrong.
template <class... A>
const char* launch(void (*kernel)(A...), const unsigned* grid, const unsigned* block, size_t shared, int falling, void** arguments,
                   const size_t* sizes, size_t count) {
  static void (*k)(A...);
  static void** a;
  k = kernel, a = arguments;
  body = [] { call(k, a, std::index_sequence_for<A...>{}); };
  error[0] = 0, current = nullptr;
  const size_t expected[] = {sizeof(A)..., 0};
  if (count != sizeof...(A)) return fail("%d arguments given to a kernel of %d", (int)count, (int)sizeof...(A)), error;
  for (size_t i = 0; i < count; i++)
    if (sizes[i] != expected[i]) return fail("argument %d has %d bytes, the kernel takes %d", (int)i, (int)sizes[i], (int)expected[i]), error;
  grid_size = {grid[0], grid[1], grid[2]};
  block_size = {block[0], block[1], block[2]};
  unsigned threads = block[0] * block[1] * block[2];
  if (threads < 1 || threads > MOST) return fail("a block has 1 to %d threads, not %d", (int)MOST, (int)threads), error;
  if (!stacks) stacks = (char*)aligned_alloc(4096, (size_t)STACK * MOST);
  dynamic_bytes = shared;
  dynamic_shared = (char*)aligned_alloc(64, (shared + 63) / 64 * 64 + 64);
  bool good = true;
  uint3& b = block_index;
  for (b.z = 0; good && b.z < grid[2]; b.z++)
    for (b.y = 0; good && b.y < grid[1]; b.y++)
      for (b.x = 0; good && b.x < grid[0]; b.x++) {
        block_number++;
        good = run_block(threads, falling);
        if (!good) break;
      }
  free(dynamic_shared);
  return error;
}

// ---------------------------------------------------------------------------------------------- shared memory
// A pointer that knows its array: every access is checked.
template <class T> struct Pointer {
  T *at, *begin, *end;
  Pointer(T* at, T* begin, T* end) : at(at), begin(begin), end(end) {}
  template <class U> Pointer(const Pointer<U>& other) : at(other.at), begin(other.begin), end(other.end) {}
  T& operator[](ptrdiff_t i) const {
    if (at + i < begin || at + i >= end) fail("shared array: place %ld of %ld", (long)(at + i - begin), (long)(end - begin));
    return at[i];
  }
  T& operator*() const { return (*this)[0]; }
  Pointer operator+(ptrdiff_t n) const { return {at + n, begin, end}; }
  Pointer operator-(ptrdiff_t n) const { return {at - n, begin, end}; }
  Pointer& operator+=(ptrdiff_t n) { return at += n, *this; }
};

template <class T, size_t N> struct Array {
  alignas(64) T values[N];
  unsigned long long block = 0;
  Pointer<T> pointer() {
    if (block != block_number) memset((void*)values, 0xff, sizeof values), block = block_number;
    return {values, values, values + N};
  }
};

// ---------------------------------------------------------------------------------------------- shuffles
template <class V> V exchange(V value, unsigned from, int line) {              // publish, wait, read, wait
  static_assert(sizeof(V) <= 8, "a shuffle moves at most 8 bytes");
  memcpy(&current->exchange, &value, sizeof value);
  wait(WARP, line);
  memcpy(&value, &fibers[(current->number & ~31u) + (from & 31)].exchange, sizeof value);
  wait(WARP, line);
  return value;
}
static inline unsigned lane() { return current->number & 31; }
static inline unsigned ballot(bool flag, int line) {
  current->exchange = flag;
  wait(WARP, line);
  unsigned first = current->number & ~31u, threads = block_size.x * block_size.y * block_size.z, mask = 0;
  for (unsigned i = 0; i < 32 && first + i < threads; i++) mask |= (unsigned)(fibers[first + i].exchange & 1) << i;
  wait(WARP, line);
  return mask;
}

// sum += a b of a warp as mma.m16n8k8 does it for TF32: lane 4 g + t gives rows g, g + 8 and columns t, t + 4 of a, and rows t, t + 4 of
// column g of b; it gets rows g, g + 8 of columns 2 t, 2 t + 1. Numbers are cut to 10 bits of mantissa; the 8 products are added at once.
static inline void mma_tf32(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, int line) {
  static float given[MOST][6];
  const unsigned words[6] = {a[0], a[1], a[2], a[3], b0, b1};
  for (int i = 0; i < 6; i++) {
    const unsigned cut = words[i] & 0xffffe000u;
    memcpy(&given[current->number][i], &cut, 4);
  }
  wait(WARP, line);
  float(*warp)[6] = given + (current->number & ~31u);
  const unsigned g = lane() / 4, t = lane() % 4;
  for (int j = 0; j < 4; j++) {
    double total = sum[j];
    for (unsigned k = 0; k < 8; k++)
      total += (double)warp[4 * g + k % 4][k / 4 * 2 + j / 2] * warp[4 * (2 * t + j % 2) + k % 4][4 + k / 4];
    sum[j] = (float)total;
  }
  wait(WARP, line);
}
}  // namespace emu

// ---------------------------------------------------------------------------------------------- the words of CUDA
#define threadIdx (emu::current->index)
#define blockIdx (emu::block_index)
#define blockDim (emu::block_size)
#define gridDim (emu::grid_size)
#define __syncthreads() emu::wait(emu::BARRIER, __LINE__)
#define __syncwarp() emu::wait(emu::WARP, __LINE__)
#define __shfl_sync(mask, value, from) emu::exchange(value, from, __LINE__)
#define __shfl_up_sync(mask, value, by) emu::exchange(value, emu::lane() < (unsigned)(by) ? emu::lane() : emu::lane() - (by), __LINE__)
#define __shfl_down_sync(mask, value, by) emu::exchange(value, emu::lane() + (by) < 32 ? emu::lane() + (by) : emu::lane(), __LINE__)
#define __shfl_xor_sync(mask, value, by) emu::exchange(value, emu::lane() ^ (by), __LINE__)
#define __ballot_sync(mask, flag) emu::ballot(flag, __LINE__)
#define mma_tf32(sum, a, b0, b1) emu::mma_tf32(sum, a, b0, b1, __LINE__)
#define __popc __builtin_popcount
#define __ffs __builtin_ffs
static inline unsigned __float_as_uint(float f) { unsigned i; memcpy(&i, &f, 4); return i; }
static inline float __int_as_float(unsigned i) { float f; memcpy(&f, &i, 4); return f; }
template <class T> T __ldg(const T* p) { return *p; }
template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }

// What common.cuh defines for a GPU: shared arrays, and loading several floats at once.
template <class T> using Shared = emu::Pointer<T>;
#define SHARED(T, name, size) static emu::Array<T, (size)> name##_array; Shared<T> name = name##_array.pointer()
#define DYNAMIC_SHARED(T, name) \
  Shared<T> name((T*)emu::dynamic_shared, (T*)emu::dynamic_shared, (T*)(emu::dynamic_shared + emu::dynamic_bytes))
template <class V> V vector_at(const float* p) {
  if ((uintptr_t)p % sizeof(V)) emu::fail("a vector of %d bytes that is not aligned", (int)sizeof(V));
  return *(const V*)p;
}
template <class V> V vector_at(Shared<const float> p) {
  p[0], p[sizeof(V) / sizeof(float) - 1];
  return vector_at<V>(p.at);
}
