// out[i] = parts[0][i] + parts[1][i] + ...: `slices` threads an element, a power of two, which take every slices-th part
// each, eight at a time.  Neighbouring threads have neighbouring elements.
extern "C" __global__ void sum_parts(const T *__restrict__ parts, T *__restrict__ out, i64 count, int n, int slices) {
    __shared__ double sums[256];
    const int wide = 256 / slices, x = threadIdx.x % wide, y = threadIdx.x / wide;
    const i64 i = (i64)blockIdx.x * wide + x;
    double sum = 0;
    for (int p = y; p < n; p += 8 * slices) {
        T v[8];
#pragma unroll
        for (int k = 0; k < 8; k++) {
            const int q = p + k * slices;
            v[k] = q < n && i < count ? parts[q * count + i] : T(0);
        }
#pragma unroll
        for (int k = 0; k < 8; k++) sum += v[k];
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (y == 0 && i < count) {
        for (int s = 1; s < slices; s++) sum += sums[s * wide + x];
        out[i] = (T)sum;
    }
}
