// float32 to and from bfloat16, which is its upper half.

const int THREADS = 256;
const int TILE = 4 * THREADS;

// The nearest bfloat16, of two equally near the even one.
__device__ inline u16 rounded(float x) {
    const unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (u16)(bits >> 16 | 0x40);  // NaN: rounding up could make it -0
    return (u16)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

struct alignas(16) Four {
    T at[4];
};

struct alignas(8) FourHalves {
    u16 at[4];
};

// by_four: whether both arrays begin at multiples of 16 bytes.
extern "C" __global__ void to_bfloat16(const T *x, u16 *out, i64 size, int by_four) {
    const i64 i = ((i64)blockIdx.x * THREADS + threadIdx.x) * 4;
    if (by_four && i + 4 <= size) {
        const Four in = *(const Four *)(x + i);
        FourHalves halves;
#pragma unroll
        for (int j = 0; j < 4; j++) halves.at[j] = rounded((float)in.at[j]);
        *(FourHalves *)(out + i) = halves;
    } else {
        for (int j = 0; j < 4 && i + j < size; j++) out[i + j] = rounded((float)x[i + j]);
    }
}

extern "C" __global__ void from_bfloat16(const u16 *x, T *out, i64 size) {
    const i64 begin = (i64)blockIdx.x * TILE + threadIdx.x;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const i64 i = begin + k * THREADS;
        if (i < size) out[i] = (T)__uint_as_float((unsigned)x[i] << 16);
    }
}
