// out[i] = parts[0][i] + parts[1][i] + ...: a block for 32 elements, eight threads an element, which take every
// eighth part each.
extern "C" __global__ void sum_parts(const T *__restrict__ parts, T *__restrict__ out, i64 count, int n) {
    __shared__ double sums[8][32];
    const int x = threadIdx.x % 32, y = threadIdx.x / 32;
    const i64 i = (i64)blockIdx.x * 32 + x;
    double sum = 0;
    if (i < count)
        for (int p = y; p < n; p += 8) sum += parts[p * count + i];
    sums[y][x] = sum;
    __syncthreads();
    if (y == 0 && i < count) {
        for (int s = 1; s < 8; s++) sum += sums[s][x];
        out[i] = (T)sum;
    }
}
