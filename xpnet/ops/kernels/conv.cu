// Convolution and both its gradients are one matrix product, of which one operand is never stored:
//
//     out[row, column] = sum over k of A[row, k] * B[k, column],    B[k, column] = gathered[position + tap]
//
//                   gathered   A     row      column          k               out
//     FORWARD       x          w     filter   position of y   tap (kw,kh,c)   y
//     INPUT_GRAD    dz         w     channel  position of dx  tap (kw,kh,f)   dx
//     WEIGHT_GRAD   x          dz    filter   tap (kw,kh,c)   position of dz  dw, in parts
//
// An element of B lies at the sum of two offsets, one of a position (h, w, n) and one of a tap: of columns and of
// k, or the other way round.  So divisions are made once for a column and once for a k (an Entry), not for an
// element.  A position and a tap know their offset in A or out as well: that of the other map, that of the weight.
//
// The gradient of a strided convolution is one of stride 1 for each phase: dx rows h with the same (h + top) % SH
// meet the same kernel rows, so each phase is a product of its own over these (Axis), and nothing is divided or
// multiplied in vain.
//
// A block computes ROWS x COLUMNS of out, CHUNK of k at a time, by THREADS threads that hold TR x TC each.  Where the
// tile is small for that many threads, SLICES threads hold the same elements and share the k; they are summed at
// the end.  A chunk is loaded to registers while the one before it is multiplied.  VECTOR elements along n, which
// is innermost in every map, are loaded and stored at once; it divides N.
//
// Macros from conv.py: MAP, the tile, VECTOR, INDEX (int, or i64 where an array is too large for it), the window.

#define FORWARD 0
#define INPUT_GRAD 1
#define WEIGHT_GRAD 2

constexpr int THREADS = (ROWS / TR) * (COLUMNS / TC) * SLICES;
static_assert(CHUNK <= THREADS, "a thread describes one k at most");
constexpr bool WEIGHT = MAP == WEIGHT_GRAD, INPUT = MAP == INPUT_GRAD;
constexpr int COLUMN_RUN = WEIGHT ? 1 : VECTOR;  // columns that lie side by side in out
// Blocks that share a multiprocessor: bounds the registers of a thread, so far that none is spilled.
constexpr int RESIDENT = sizeof(T) == 8 || VECTOR == 1 ? 2 : WEIGHT || TC == 8 || COLUMNS == 256 ? 3 : 4;

template <int n> struct alignas(n * sizeof(T) < 16 ? n * sizeof(T) : 16) Run { T v[n]; };

// Offsets of a tap or of a position: in the map that is gathered from, and in A or out; its row and column there.
struct alignas(16) Entry { INDEX gathered, other; int h, w; };

// One direction of the maps: position i and tap t meet row origin + i * stride + t * step of the gathered map.
// Position i is row start + i * pitch of the other map, tap t is row first + t * period of the kernel.
struct Axis { int count, stride, origin, start, pitch, taps, step, first, period; };

// K, S, D are constants, so that little of this is left; count: positions of the other map.
__device__ inline Axis axis(int count, int K, int S, int D, int padding, int phase) {
    if (!INPUT) return {count, S, 0, 0, 1, K, D, 0, 1};
    int period = 1, first = 0, start = ((phase - padding) % S + S) % S;
    while (period * D % S) ++period;
    while (first < K && first * D % S != phase) ++first;
    return {(count - start + S - 1) / S, 1, (start + padding - first * D) / S, start, S,
            first < K ? (K - 1 - first) / period + 1 : 0, -(period * D / S), first, period};
}

// An operand's chunk in shared memory.  Its SIDE is that of the tile: rows for A, columns for B; a thread multiplies
// COUNT elements of it.  LOAD_K, ALONG_K: whether it lies along k, or else along the side, in memory, where RUN
// elements are loaded at once, and in shared memory.
template <int SIDE, int COUNT, int RUN, bool LOAD_K, bool ALONG_K> struct Tile {
    static constexpr int PITCH = ALONG_K ? CHUNK + 4 : SIDE + (LOAD_K ? 4 : 0);  // + 4: to begin in other banks
    static constexpr int SIZE = ALONG_K ? SIDE * PITCH : CHUNK * PITCH;
    static constexpr int RUNS = SIDE * CHUNK / RUN, LOADS = (RUNS + THREADS - 1) / THREADS;
    static constexpr int GROUP = ALONG_K ? 1 : COUNT < 4 ? COUNT : 4;  // of a thread's elements, side by side

    static __device__ int at(int side, int k) { return ALONG_K ? side * PITCH + k : k * PITCH + side; }

    // What the e-th load of a chunk brings.
    static __device__ int load_side(int e) { return LOAD_K ? e / (CHUNK / RUN) : e % (SIDE / RUN) * RUN; }
    static __device__ int load_k(int e) { return LOAD_K ? e % (CHUNK / RUN) * RUN : e / (SIDE / RUN); }

    // Where the i-th of a thread's COUNT elements stands; thread: its number along this side.
    static __device__ int side(int thread, int i) {
        return (i / GROUP * (SIDE / COUNT) + thread) * GROUP + i % GROUP;
    }

    // The thread's elements at k .. k + 3.
    static __device__ void fetch(const T *tile, int thread, int k, T (&f)[COUNT][4]) {
        if (ALONG_K) {
            for (int i = 0; i < COUNT; i++) {
                Run<4> run = *(const Run<4> *)(tile + at(side(thread, i), k));
                for (int kk = 0; kk < 4; kk++) f[i][kk] = run.v[kk];
            }
        } else {
            for (int kk = 0; kk < 4; kk++)
                for (int i = 0; i < COUNT; i += GROUP) {
                    Run<GROUP> run = *(const Run<GROUP> *)(tile + at(side(thread, i), k + kk));
                    for (int g = 0; g < GROUP; g++) f[i + g][kk] = run.v[g];
                }
        }
    }
};

// gathered (GH, groups * channels, GW, N), the other map (MH, groups * rows, MW, N); w (KW, filters, KH, C/G).
// Blocks: (columns, rows, groups * phases or parts, from `first` on).  span: k in a part of WEIGHT_GRAD.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
convolve(const T *__restrict__ gathered, const T *__restrict__ A, const T *__restrict__ bias, T *__restrict__ out,
         int N, int GH, int GW, int MH, int MW, int groups, int channels, int rows, int top, int left, i64 span,
         int first) {
    using TileA = Tile<ROWS, TR, WEIGHT ? VECTOR : 1, !INPUT, WEIGHT>;
    using TileB = Tile<COLUMNS, TC, VECTOR, WEIGHT, WEIGHT>;
    constexpr int TILES = 2 * (TileA::SIZE + TileB::SIZE), SUMS = SLICES > 1 ? THREADS * TR * TC : 0;
    __shared__ Run<4> memory[((TILES > SUMS ? TILES : SUMS) + 3) / 4];
    __shared__ Entry column_entries[COLUMNS / COLUMN_RUN], k_entries[2][CHUNK];

    const int z = first + blockIdx.z, group = z % groups, part = z / groups;  // part: or phase
    const int GC = groups * channels, MC = groups * rows;
    const int filters = INPUT ? GC : MC, C = INPUT ? rows : channels;
    const Axis vertical = axis(MH, KH, SH, DH, top, part / SW), across = axis(MW, KW, SW, DW, left, part % SW);
    const INDEX positions = (INDEX)vertical.count * across.count * N;
    const INDEX taps = (INDEX)vertical.taps * across.taps * channels;

    auto position = [&](INDEX p) -> Entry {
        const int n = p % N;
        const INDEX q = p / N;
        const int i = q / across.count, j = q % across.count;
        const int h = vertical.origin + i * vertical.stride, w = across.origin + j * across.stride;
        return {((INDEX)h * GC * GW + w) * N + n,
                ((INDEX)(vertical.start + i * vertical.pitch) * MC * MW + across.start + j * across.pitch) * N + n,
                h, w};
    };
    auto tap = [&](INDEX k) -> Entry {
        const int c = k % channels, q = k / channels, i = q % vertical.taps, j = q / vertical.taps;
        const int h = i * vertical.step, w = j * across.step;
        const INDEX kh = vertical.first + i * vertical.period, kw = across.first + j * across.period;
        return {(((INDEX)h * GC + c) * GW + w) * N,
                ((kw * filters + (INPUT ? c : 0)) * KH + kh) * C + (INPUT ? 0 : c), h, w};
    };

    const INDEX columns = WEIGHT ? taps : positions, column0 = (INDEX)blockIdx.x * COLUMNS;
    const INDEX k_begin = WEIGHT ? part * span : 0;
    const INDEX k_end = !WEIGHT ? taps : positions - k_begin < span ? positions : (INDEX)(k_begin + span);
    const int row0 = blockIdx.y * ROWS, thread = threadIdx.x;
    if (column0 >= columns) return;  // the grid is that of the largest phase

    const INDEX map_pitch = (INDEX)MW * N, weight_pitch = INPUT ? 1 : KH * C;  // from row to row of A and out
    const INDEX map_base = group * rows * map_pitch, weight_base = (INDEX)group * (INPUT ? channels : rows) * KH * C;
    const INDEX A_pitch = WEIGHT ? map_pitch : weight_pitch, out_pitch = WEIGHT ? weight_pitch : map_pitch;
    gathered += (INDEX)group * channels * GW * N;
    A += WEIGHT ? map_base : weight_base;
    out += WEIGHT ? weight_base + (i64)part * KW * filters * KH * C : map_base;

    auto describe = [&](INDEX k0, Entry *entries) {
        const INDEX k = k0 + thread;
        if (thread < CHUNK && k < k_end) entries[thread] = WEIGHT ? position(k) : tap(k);
    };
#pragma unroll 1
    for (int c = thread; c < COLUMNS / COLUMN_RUN; c += THREADS) {
        const INDEX column = column0 + c * COLUMN_RUN;
        column_entries[c] = column >= columns ? Entry{0, 0, 0, 0} : WEIGHT ? tap(column) : position(column);
    }
    describe(k_begin, k_entries[0]);
    __syncthreads();

    Entry column[TileB::LOADS];  // of this thread's loads, and its rows
    INDEX row[TileA::LOADS];
    for (int i = 0; i < TileB::LOADS; i++)
        column[i] = column_entries[TileB::load_side(thread + i * THREADS) % COLUMNS / COLUMN_RUN];
    for (int i = 0; i < TileA::LOADS; i++)
        row[i] = min(row0 + TileA::load_side(thread + i * THREADS), rows - 1) * A_pitch;

    // What lies beyond the last k or outside of the gathered map is zero.  Beyond the last row and column anything is
    // loaded, and not stored.
    Run<WEIGHT ? VECTOR : 1> loaded_a[TileA::LOADS];
    Run<VECTOR> loaded_b[TileB::LOADS];
    auto load = [&](INDEX k0, const Entry *entries) {
        for (int i = 0; i < TileA::LOADS; i++) {
            const int e = thread + i * THREADS, k = TileA::load_k(e) % CHUNK;
            const INDEX offset = row[i] + entries[k].other;
            const bool there = (TileA::RUNS % THREADS == 0 || e < TileA::RUNS) && k0 + k < k_end;
            loaded_a[i] = {};
            if (there) loaded_a[i] = *(const Run<WEIGHT ? VECTOR : 1> *)(A + offset);
        }
        for (int i = 0; i < TileB::LOADS; i++) {
            const int e = thread + i * THREADS, k = TileB::load_k(e) % CHUNK;
            const Entry t = entries[k];
            const INDEX offset = column[i].gathered + t.gathered;
            bool there = (TileB::RUNS % THREADS == 0 || e < TileB::RUNS) && k0 + k < k_end;
            if (INPUT)
                there &= (unsigned)(column[i].h + t.h) < (unsigned)GH & (unsigned)(column[i].w + t.w) < (unsigned)GW;
            loaded_b[i] = {};
            if (there) loaded_b[i] = *(const Run<VECTOR> *)(gathered + offset);
        }
    };
    T *tiles = memory[0].v;
    auto store = [&](int half) {
        T *a = tiles + half * (TileA::SIZE + TileB::SIZE), *b = a + TileA::SIZE;
        for (int i = 0; i < TileA::LOADS; i++) {
            const int e = thread + i * THREADS;
            if (TileA::RUNS % THREADS == 0 || e < TileA::RUNS)
                *(Run<WEIGHT ? VECTOR : 1> *)(a + TileA::at(TileA::load_side(e), TileA::load_k(e))) = loaded_a[i];
        }
        for (int i = 0; i < TileB::LOADS; i++) {
            const int e = thread + i * THREADS;
            if (TileB::RUNS % THREADS == 0 || e < TileB::RUNS)
                *(Run<VECTOR> *)(b + TileB::at(TileB::load_side(e), TileB::load_k(e))) = loaded_b[i];
        }
    };

    constexpr int ACROSS = COLUMNS / TC, LANES = THREADS / SLICES;
    const int slice = thread / LANES, lane = thread % LANES, x = lane % ACROSS, y = lane / ACROSS;
    T sum[TR][TC] = {};
    load(k_begin, k_entries[0]);
    store(0);
    describe(k_begin + CHUNK, k_entries[1]);
    __syncthreads();
    int half = 0;
    for (INDEX k0 = k_begin; k0 < k_end; k0 += CHUNK, half ^= 1) {
        load(k0 + CHUNK, k_entries[half ^ 1]);
        describe(k0 + 2 * CHUNK, k_entries[half]);
        const T *a = tiles + half * (TileA::SIZE + TileB::SIZE), *b = a + TileA::SIZE;
#pragma unroll
        for (int k = 0; k < CHUNK; k += 4 * SLICES) {
            if (k0 + k >= k_end) break;
            T fa[TR][4], fb[TC][4];
            TileA::fetch(a, y, k + 4 * slice, fa);
            TileB::fetch(b, x, k + 4 * slice, fb);
            for (int kk = 0; kk < 4; kk++)
                for (int i = 0; i < TR; i++)
                    for (int j = 0; j < TC; j++) sum[i][j] += fa[i][kk] * fb[j][kk];
        }
        store(half ^ 1);
        __syncthreads();
    }

    if (SLICES > 1) {  // slice s sums up every SLICES-th row, in the order of slices
        for (int i = 0; i < TR; i++)
            for (int j = 0; j < TC; j++) tiles[((slice * TR + i) * TC + j) * LANES + lane] = sum[i][j];
        __syncthreads();
        for (int i = 0; i < TR; i++)
            for (int j = 0; j < TC && i % SLICES == slice; j++) {
                sum[i][j] = tiles[(i * TC + j) * LANES + lane];
                for (int s = 1; s < SLICES; s++) sum[i][j] += tiles[((s * TR + i) * TC + j) * LANES + lane];
            }
    }
    for (int i = 0; i < TR; i++) {
        const int r = row0 + TileA::side(y, i);
        if (r >= rows || i % SLICES != slice) continue;
#if MAP == FORWARD
        const T shift = bias ? bias[group * rows + r] : T(0);
#endif
        for (int j = 0; j < TC; j += COLUMN_RUN) {
            const int c = TileB::side(x, j);
            if (column0 + c >= columns) continue;
            Run<COLUMN_RUN> run;
            for (int v = 0; v < COLUMN_RUN; v++) {
                run.v[v] = sum[i][j + v];
#if MAP == FORWARD
                run.v[v] = activate(run.v[v] + shift);
#endif
            }
            *(Run<COLUMN_RUN> *)(out + (r * out_pitch + column_entries[c / COLUMN_RUN].other)) = run;
        }
    }
}
