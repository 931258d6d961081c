// What host_cuda.py puts before a CUDA source so that g++ compiles it and it runs on the CPU, block by block.

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <type_traits>
#include <utility>

// ---- running a block ----

struct xp_dim3 { unsigned x, y, z; };
xp_dim3 threadIdx, blockIdx, blockDim, gridDim;
extern char __start_xp_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_xp_shared[] __attribute__((weak, visibility("hidden")));

namespace xp {

enum { STACK = 256 << 10 };
struct Fiber { void *sp; xp_dim3 index; int line; bool done; };
Fiber fibers[1024], *current;
void *home;               // the scheduler's stack pointer while a fiber runs
char *stacks;
sigjmp_buf escape;        // where an error leads when no fiber runs
char *message;
bool failed;
void (*invoke)(void **);
void **arguments;

#if defined(__x86_64__)
extern "C" void xp_switch(void **save, void *to);
asm(R"(
.text
.local xp_switch
.type xp_switch, @function
xp_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
void *prepare(char *top, void (*entry)()) {
    void **sp = (void **)top;
    *--sp = 0;
    *--sp = (void *)entry;  // the stack is 8 off a multiple of 16 when entry begins, as after a call
    for (int i = 0; i < 6; i++) *--sp = 0;
    return sp;
}
#elif defined(__aarch64__)
extern "C" void xp_switch(void **save, void *to);
asm(R"(
.text
.local xp_switch
.type xp_switch, %function
xp_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
)");
void *prepare(char *top, void (*entry)()) {
    void **sp = (void **)top - 20;
    memset(sp, 0, 160);
    sp[11] = (void *)entry;  // x30
    return sp;
}
#else
#include <ucontext.h>
ucontext_t contexts[1025];
void xp_switch(void **save, void *to) {
    if (save == &home) home = &contexts[1024];
    swapcontext((ucontext_t *)*save, (ucontext_t *)to);
}
void *prepare(char *top, void (*entry)()) {
    ucontext_t *c = &contexts[(top - stacks) / STACK - 1];
    getcontext(c);
    c->uc_stack.ss_sp = top - STACK;
    c->uc_stack.ss_size = STACK;
    makecontext(c, entry, 0);
    return c;
}
#endif

void leave() { xp_switch(&current->sp, home); }

// A barrier: the line says which one, as all threads have to wait at the same one.
__attribute__((noinline)) void barrier(int line) {
    current->line = line;
    leave();
}

void entry() {
    invoke(arguments);
    current->done = true;
    leave();
}

struct Location { const char *file; unsigned line, column; };

void where(char *text, int size) {
    snprintf(text, size, "block (%u, %u, %u), thread (%u, %u, %u)", blockIdx.x, blockIdx.y, blockIdx.z,
             threadIdx.x, threadIdx.y, threadIdx.z);
}

// Ends the launch with what a sanitizer found.
void fail(const char *what, Location *at) {
    char place[100];
    where(place, 100);
    snprintf(message, 500, "%s at line %u of the source, %s", what, at->line, place);
    failed = true;
    if (current) leave();
    siglongjmp(escape, 1);
}

void crash(int, siginfo_t *info, void *) {
    char place[100];
    where(place, 100);
    snprintf(message, 500, "an access to address %p, %s", info->si_addr, place);
    failed = true;
    siglongjmp(escape, 1);
}

// While it lives, a kernel's access to no memory at all ends the launch instead of the process.
struct Crashes {
    struct sigaction before[2];
    stack_t stack_before;
    static constexpr int signals[2] = {SIGSEGV, SIGBUS};
    Crashes() {
        static char memory[64 << 10];
        stack_t stack = {};
        stack.ss_sp = memory;
        stack.ss_size = sizeof memory;
        sigaltstack(&stack, &stack_before);
        struct sigaction action = {};
        action.sa_sigaction = crash;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        for (int i = 0; i < 2; i++) sigaction(signals[i], &action, &before[i]);
    }
    ~Crashes() {
        for (int i = 0; i < 2; i++) sigaction(signals[i], &before[i], nullptr);
        sigaltstack(&stack_before, nullptr);
    }
};

template <class F> void each_index(xp_dim3 size, bool reverse, F f) {
    long long n = (long long)size.x * size.y * size.z;
    for (long long k = 0; k < n; k++) {
        long long i = reverse ? n - 1 - k : k;
        f(i, xp_dim3{(unsigned)(i % size.x), (unsigned)(i / size.x % size.y), (unsigned)(i / size.x / size.y)});
        if (failed) return;
    }
}

void block_of_fibers(bool reverse) {
    int waiting, left, line = 0, n = blockDim.x * blockDim.y * blockDim.z;
    each_index(blockDim, false, [](long long i, xp_dim3 index) {
        fibers[i] = {prepare(stacks + (i + 1) * STACK, entry), index, 0, false};
    });
    do {
        waiting = left = 0;
        for (int k = 0; k < n; k++) {
            current = &fibers[reverse ? n - 1 - k : k];
            threadIdx = current->index;
            xp_switch(&home, current->sp);
            if (failed) {
                current = nullptr;
                return;
            }
            if (current->done) {
                left++;
            } else if (waiting++ == 0) {
                line = current->line;
            } else if (line != current->line && !failed) {
                failed = true;
                snprintf(message, 500, "threads of block (%u, %u, %u) wait at different barriers: lines %d and %d",
                         blockIdx.x, blockIdx.y, blockIdx.z, line, current->line);
            }
        }
        current = nullptr;
        if (waiting && left && !failed) {
            failed = true;
            snprintf(message, 500, "%d threads of block (%u, %u, %u) ended while %d wait at the barrier of line %d",
                     left, blockIdx.x, blockIdx.y, blockIdx.z, waiting, line);
        }
    } while (waiting && !failed);
}

void *(*volatile fill)(void *, int, size_t) = memset;  // volatile: what it writes is other variables' memory

template <class... P, size_t... I> void apply(void (*f)(P...), void **a, std::index_sequence<I...>) {
    f(*(P *)a[I]...);
}

template <auto F, class... P> void invoke_with(void (*)(P...), void **a) {
    apply(F, a, std::index_sequence_for<P...>());
}

template <auto F> int launch(const unsigned *size, void **a, int reverse, int barriers, char *text) {
    gridDim = {size[0], size[1], size[2]};
    blockDim = {size[3], size[4], size[5]};
    message = text;
    failed = false;
    current = nullptr;
    arguments = a;
    invoke = [](void **a) { invoke_with<F>(F, a); };
    if (!stacks && barriers)
        stacks = (char *)mmap(0, 1024l * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                              -1, 0);
    Crashes crashes;
    if (sigsetjmp(escape, 1)) return 1;
    each_index(gridDim, reverse, [&](long long, xp_dim3 index) {
        blockIdx = index;
        if (__start_xp_shared) fill(__start_xp_shared, 0xFF, __stop_xp_shared - __start_xp_shared);
        if (barriers) {
            block_of_fibers(reverse);
        } else {
            each_index(blockDim, reverse, [&](long long, xp_dim3 index) {
                threadIdx = index;
                invoke_with<F>(F, a);
            });
        }
    });
    return failed;
}

// What a parameter is: kind and size, behind "*" for a pointer, "&" for a pointer to const.
template <class P> void describe(char *&text) {
    using V = std::remove_cv_t<P>;
    if constexpr (std::is_pointer_v<V>) {
        using To = std::remove_pointer_t<V>;
        *text++ = std::is_const_v<To> ? '&' : '*';
        if constexpr (std::is_arithmetic_v<To>) describe<To>(text);
        else text += sprintf(text, "v0 ");
    } else {
        char kind = std::is_floating_point_v<V> ? 'f' : !std::is_integral_v<V> ? 'V' : std::is_unsigned_v<V> ? 'u' : 'i';
        text += sprintf(text, "%c%d ", kind, (int)sizeof(V));
    }
}

template <class... P> const char *describe_all(void (*)(P...)) {
    static char text[2000];
    char *end = text;
    (describe<P>(end), ...);
    return text;
}

#define xp_handler(name, what) \
    void name(Location *at) __asm__("__ubsan_handle_" #name); \
    __attribute__((used)) void name(Location *at) { fail(what, at); }
xp_handler(type_mismatch_v1, "a null or misaligned pointer")
xp_handler(out_of_bounds, "an index out of its array's bounds")
xp_handler(divrem_overflow, "a division by zero")
xp_handler(add_overflow, "an overflow of +")
xp_handler(sub_overflow, "an overflow of -")
xp_handler(mul_overflow, "an overflow of *")
xp_handler(negate_overflow, "an overflow of -")
xp_handler(shift_out_of_bounds, "a shift by a wrong number of bits")

}  // namespace xp

// ---- what CUDA has ----

#undef INFINITY  // NVRTC has no header's macros
#undef NAN
#undef HUGE_VAL
#undef HUGE_VALF
#undef M_PI
#define __CUDACC_HOST_SHIM__ 1
#define __global__
#define __device__
#define __host__
#define __constant__
#define __restrict__ __restrict
#define __shared__ static __attribute__((section("xp_shared")))
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) alignas(n)
#define __syncthreads() xp::barrier(__LINE__)
#define __threadfence()
#define __threadfence_block()

#define xp_minmax(R, A, B) \
    inline R min(A a, B b) { return (R)b < (R)a ? (R)b : (R)a; } \
    inline R max(A a, B b) { return (R)a < (R)b ? (R)b : (R)a; }
#define xp_minmax_mixed(I, U) xp_minmax(I, I, I) xp_minmax(U, U, U) xp_minmax(U, I, U) xp_minmax(U, U, I)
xp_minmax_mixed(int, unsigned)
xp_minmax_mixed(long, unsigned long)
xp_minmax_mixed(long long, unsigned long long)
#define xp_minmax_float(R, A, B) \
    inline R min(A a, B b) { return fmin((R)a, (R)b); } \
    inline R max(A a, B b) { return fmax((R)a, (R)b); }
xp_minmax_float(float, float, float)
xp_minmax_float(double, double, double)
xp_minmax_float(double, float, double)
xp_minmax_float(double, double, float)

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float fdividef(float x, float y) { return x / y; }
inline float __fdividef(float x, float y) { return x / y; }
inline float __saturatef(float x) { return fminf(fmaxf(x, 0.0f), 1.0f); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

template <class To, class From> inline To xp_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof(to));
    return to;
}
inline unsigned __float_as_uint(float x) { return xp_bits<unsigned>(x); }
inline int __float_as_int(float x) { return xp_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return xp_bits<float>(x); }
inline float __int_as_float(int x) { return xp_bits<float>(x); }
inline long long __double_as_longlong(double x) { return xp_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return xp_bits<double>(x); }
inline float __int2float_rn(int x) { return (float)x; }
inline float __uint2float_rn(unsigned x) { return (float)x; }
inline float __double2float_rn(double x) { return (float)x; }
inline int __float2int_rn(float x) { return (int)rintf(x); }
inline int __float2int_rz(float x) { return (int)x; }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
inline int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
template <class V> inline V __ldg(const V *p) { return *p; }

// Whole numbers only: a sum of floats by atomics is in another order on each run.
#define xp_atomics(V) \
    inline V atomicAdd(V *p, V v) { V old = *p; *p = (V)((unsigned long long)old + (unsigned long long)v); return old; } \
    inline V atomicMax(V *p, V v) { V old = *p; if (v > old) *p = v; return old; } \
    inline V atomicMin(V *p, V v) { V old = *p; if (v < old) *p = v; return old; } \
    inline V atomicAnd(V *p, V v) { V old = *p; *p = old & v; return old; } \
    inline V atomicOr(V *p, V v) { V old = *p; *p = old | v; return old; } \
    inline V atomicExch(V *p, V v) { V old = *p; *p = v; return old; } \
    inline V atomicCAS(V *p, V if_, V v) { V old = *p; if (old == if_) *p = v; return old; }
xp_atomics(int)
xp_atomics(unsigned)
xp_atomics(unsigned long long)
inline int atomicSub(int *p, int v) { return atomicAdd(p, -v); }
inline unsigned atomicInc(unsigned *p, unsigned v) { unsigned old = *p; *p = old >= v ? 0 : old + 1; return old; }
float atomicAdd(float *, float) = delete;
double atomicAdd(double *, double) = delete;

#define xp_vector(name, V) \
    struct name##1 { V x; }; \
    struct alignas(2 * sizeof(V)) name##2 { V x, y; }; \
    struct name##3 { V x, y, z; }; \
    struct alignas(4 * sizeof(V) > 16 ? 16 : 4 * sizeof(V)) name##4 { V x, y, z, w; }; \
    inline name##1 make_##name##1(V x) { return {x}; } \
    inline name##2 make_##name##2(V x, V y) { return {x, y}; } \
    inline name##3 make_##name##3(V x, V y, V z) { return {x, y, z}; } \
    inline name##4 make_##name##4(V x, V y, V z, V w) { return {x, y, z, w}; }
xp_vector(float, float)
xp_vector(double, double)
xp_vector(int, int)
xp_vector(uint, unsigned)
xp_vector(char, signed char)
xp_vector(uchar, unsigned char)
xp_vector(short, short)
xp_vector(ushort, unsigned short)
xp_vector(longlong, long long)
xp_vector(ulonglong, unsigned long long)
