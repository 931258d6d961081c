// Masks from Philox4x64-10 (Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3"), bit for bit those of
// numpy.random.Philox: element e of a layer has bits 16 (e mod 4).. of word e / 4 of the stream.
//
// A thread computes one Philox block, 16 elements.  Its ten rounds are about 250 instructions (an estimate, not
// measured), 16 an element, which hide behind the 12 bytes of memory traffic an element; four threads that computed
// the block for four elements each would spend 64, which do not.  The words then change hands through shared memory,
// so that a thread works on four neighbouring elements and neighbouring threads have neighbouring addresses.

const int THREADS = 128;
const int PLANE = THREADS + 4;  // words 0 of all threads, words 1 ...; the 4 keep a warp's reads in different banks

struct Philox {
    u64 key, layer, step;
};

struct Words {
    u64 a, b, c, d;
};

// Block i of the stream.  NumPy's generator counts before each block, so the first has number 1.
__device__ inline Words philox_block(Philox stream, u64 i) {
    u64 a = i + 1, b = 0, c = stream.layer, d = stream.step, k0 = stream.key, k1 = 0;
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const u64 m0 = 0xD2E7470EE14C6C93ull, m1 = 0xCA5A826395121157ull;
        const u64 high0 = __umul64hi(m0, a), low0 = m0 * a, high1 = __umul64hi(m1, c), low1 = m1 * c;
        a = high1 ^ b ^ k0;
        b = low1;
        c = high0 ^ d ^ k1;
        d = low0;
        k0 += 0x9E3779B97F4A7C15ull;
        k1 += 0xBB67AE8584CAA73Bull;
    }
    return {a, b, c, d};
}

// Words of the blocks of this thread block; word w of its elements lies at words[w % 4 * PLANE + w / 4].
__device__ inline void draw(Philox stream, u64 *words) {
    const Words drawn = philox_block(stream, (u64)blockIdx.x * THREADS + threadIdx.x);
    words[threadIdx.x] = drawn.a;
    words[threadIdx.x + PLANE] = drawn.b;
    words[threadIdx.x + 2 * PLANE] = drawn.c;
    words[threadIdx.x + 3 * PLANE] = drawn.d;
    __syncthreads();
}

struct alignas(16) Four {
    T at[4];
};

struct alignas(8) FourBits {
    u16 at[4];
};

// mask = (bits >= threshold) * scale, y = x * mask.  by_four: whether x, y and mask begin at multiples of 16 bytes.
extern "C" __global__ void forward(
    const T *__restrict__ x, T *__restrict__ y, T *__restrict__ mask, const Control *control, u64 key, u64 layer,
    int threshold, T scale, i64 size, int by_four
) {
    __shared__ u64 words[4 * PLANE];
    draw({key, layer, control->step}, words);
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const int w = k * THREADS + threadIdx.x;
        const i64 e = ((i64)blockIdx.x * THREADS * 4 + w) * 4;
        const u64 word = words[w % 4 * PLANE + w / 4];
        if (by_four && e + 4 <= size) {
            const Four in = *(const Four *)(x + e);
            Four kept, out;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                kept.at[j] = (int)(word >> 16 * j & 65535) >= threshold ? scale : (T)0;
                out.at[j] = in.at[j] * kept.at[j];
            }
            *(Four *)(mask + e) = kept;
            *(Four *)(y + e) = out;
        } else {
            for (int j = 0; j < 4 && e + j < size; j++) {
                const T kept = (int)(word >> 16 * j & 65535) >= threshold ? scale : (T)0;
                mask[e + j] = kept;
                y[e + j] = x[e + j] * kept;
            }
        }
    }
}

// The same for vectors (N, D) whose memory is (D, N): neighbours in memory are D apart in the stream, so each element
// draws its block anew.  Vectors are small.
extern "C" __global__ void forward_transposed(
    const T *x, T *y, T *mask, const Control *control, u64 key, u64 layer, int threshold, T scale, i64 N, i64 D
) {
    const i64 i = (i64)blockIdx.x * THREADS + threadIdx.x;
    if (i >= N * D) return;
    const i64 e = i % N * D + i / N;
    const Words drawn = philox_block({key, layer, control->step}, e / 16);
    const int w = e / 4 % 4;
    const u64 word = w < 2 ? (w == 0 ? drawn.a : drawn.b) : (w == 2 ? drawn.c : drawn.d);
    const T kept = (int)(word >> 16 * (e % 4) & 65535) >= threshold ? scale : (T)0;
    mask[i] = kept;
    y[i] = x[i] * kept;
}

// The bits themselves.
extern "C" __global__ void bits(u16 *out, const Control *control, u64 key, u64 layer, i64 size, int by_four) {
    __shared__ u64 words[4 * PLANE];
    draw({key, layer, control->step}, words);
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const int w = k * THREADS + threadIdx.x;
        const i64 e = ((i64)blockIdx.x * THREADS * 4 + w) * 4;
        const u64 word = words[w % 4 * PLANE + w / 4];
        FourBits four;
#pragma unroll
        for (int j = 0; j < 4; j++) four.at[j] = (u16)(word >> 16 * j);
        if (by_four && e + 4 <= size) {
            *(FourBits *)(out + e) = four;
        } else {
            for (int j = 0; j < 4 && e + j < size; j++) out[e + j] = (u16)(word >> 16 * j);
        }
    }
}
