// Single operations on the CPU backend: those of a Llama block at the shape of llama2.c's
// stories15M (dim 288, hidden 768, 6 heads, vocabulary 32,000, context 256), and products with int8
// weights, each beside the time that reading as many bytes takes on the same machine in the same
// run.
//
// Every benchmark repeats its operation over enough copies of the weights that they come from where
// a model's come from: the shared cache or memory, not L2. `--benchmark_enable_random_interleaving`
// keeps a machine's moods out of ratios.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "host/thread_pool.h"
#include "kernels/backend.h"
#include "kernels/cpu/isa/limits.h"
#include "kernels/cpu/kernel_table.h"

namespace ocelli::kernels {
namespace {

constexpr int kDim = 288;
constexpr int kHidden = 768;
constexpr int kHeads = 6;
constexpr int kHeadDim = kDim / kHeads;
constexpr int kVocabulary = 32'000;
constexpr int kContext = 256;
constexpr int kGroup = 32;  // of 288: runq.c's export halves 64 until it divides the width
// Weights that one benchmark goes through, in bytes: about as many as the model has in int8.
constexpr int64_t kWorkingSet = 16'000'000;

int threads() {
  const char* text = std::getenv("OCELLI_BENCH_THREADS");
  return text ? std::atoi(text) : host::available_processors();
}

Ops& ops() {
  const char* isa = std::getenv("OCELLI_ISA");
  static const std::unique_ptr<Ops> instance = make_backend({"cpu", threads(), isa ? isa : ""});
  return *instance;
}

std::vector<float> random_values(int64_t count) {
  std::mt19937 engine(1);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(engine() >> 8) * 0x1p-23F - 1;
  return values;
}

Tensor random_tensor(int rows, int cols) {
  const Tensor tensor = ops().tensor(rows, cols, DType::kF32, Placement::kActivation);
  ops().write(random_values(int64_t{rows} * cols), tensor);
  return tensor;
}

// How many copies of `bytes` make a working set.
int copies_of(int64_t bytes) {
  return static_cast<int>(std::max<int64_t>(1, kWorkingSet / bytes));
}

// Random matrices [outputs, inputs], as fp32 (group 0) or int8.
class Weights {
 public:
  Weights(int inputs, int outputs, int group) {
    const int64_t elements = int64_t{inputs} * outputs;
    const int count = copies_of(group == 0 ? elements * 4 : elements);
    for (int i = 0; i < count; ++i) load(inputs, outputs, group);
  }

  const Linear& next() { return linears_[index_++ % linears_.size()]; }

 private:
  void load(int inputs, int outputs, int group) {
    const int64_t elements = int64_t{inputs} * outputs;
    HostTensor tensor{"random", DType::kF32, {outputs, inputs}, nullptr, nullptr, group};
    if (group == 0) {
      floats_.push_back(random_values(elements));
      tensor.data = reinterpret_cast<const std::byte*>(floats_.back().data());
      linears_.push_back(ops().load_linear({{tensor}, {}}));
      return;
    }
    // Packed on loading: the source need not stay.
    std::mt19937 engine(2);
    std::vector<std::byte> values(elements);
    for (std::byte& value : values) value = static_cast<std::byte>(engine());
    const std::vector<float> scales(elements / group, 0.01F);
    tensor.dtype = DType::kI8;
    tensor.data = values.data();
    tensor.scales = scales.data();
    linears_.push_back(ops().load_linear({{tensor}, {}}));
  }

  std::vector<std::vector<float>> floats_;
  std::vector<Linear> linears_;
  size_t index_ = 0;
};

// What counts for a product of few rows: the bytes of weights that pass.
void report(benchmark::State& state, int64_t weights, int group) {
  const int64_t bytes = group == 0 ? weights * 4 : weights + weights / group * 4;
  state.SetBytesProcessed(state.iterations() * bytes);
  state.counters["ops"] = benchmark::Counter(2.0 * static_cast<double>(weights * state.range(0)),
                                             benchmark::Counter::kIsIterationInvariantRate);
}

// range: rows, inputs, outputs, group (0: fp32)
void matmul(benchmark::State& state) {
  const int rows = static_cast<int>(state.range(0));
  const int inputs = static_cast<int>(state.range(1));
  const int outputs = static_cast<int>(state.range(2));
  const int group = static_cast<int>(state.range(3));
  Weights weights(inputs, outputs, group);
  const Tensor x = random_tensor(rows, inputs);
  const Tensor out = random_tensor(rows, outputs);
  for (auto _ : state) ops().linear(x, weights.next(), out, Epilogue::kStore);
  report(state, int64_t{inputs} * outputs, group);
}

void matmul_shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"rows", "in", "out", "group"})->UseRealTime();
  for (const int group : {0, kGroup}) {
    for (const int rows : {1, 16}) {
      bench->Args({rows, kDim, 3 * kDim, group});
      bench->Args({rows, kDim, kHidden, group});
      bench->Args({rows, kHidden, kDim, group});
      bench->Args({rows, kDim, kVocabulary, group});
    }
  }
  // Phi-2's second matrix of the MLP, with one scale an output.
  for (const int rows : {1, 4, 16, 256}) bench->Args({rows, 10'240, 2'560, 10'240});
}
BENCHMARK(matmul)->Apply(matmul_shapes);

// As many bytes as a product's weights, summed by as many threads.
void read_bytes(benchmark::State& state) {
  const int64_t bytes = state.range(0);
  const int copies = copies_of(bytes);
  const int64_t words = bytes / 8;
  std::vector<uint64_t> memory(words * copies, 1);
  host::ThreadPool pool(threads());
  const int parts = pool.size() * 4;
  std::vector<uint64_t> sums(parts * 8);
  int copy = 0;
  for (auto _ : state) {
    const uint64_t* data = memory.data() + copy++ % copies * words;
    pool.parallel_for(parts, [&](int part, int) {
      uint64_t sum = 0;
      for (int64_t i = words * part / parts; i < words * (part + 1) / parts; ++i) sum += data[i];
      sums[part * 8] += sum;
    });
    benchmark::DoNotOptimize(sums.data());
  }
  state.SetBytesProcessed(state.iterations() * bytes);
}
BENCHMARK(read_bytes)
    ->ArgName("bytes")
    ->UseRealTime()
    ->Arg(kDim* kHidden)
    ->Arg(kDim* kVocabulary)
    ->Arg(2'560 * 10'240);

void rmsnorm(benchmark::State& state) {
  const Tensor x = random_tensor(1, kDim);
  const Tensor out = random_tensor(1, kDim);
  const Norm norm = {random_tensor(1, kDim), {}, 1e-5F};
  for (auto _ : state) ops().rms_norm(x, norm, out);
}
BENCHMARK(rmsnorm)->UseRealTime();

void rope(benchmark::State& state) {
  const Tensor x = random_tensor(1, 2 * kDim);
  // A true rotation, or repeating it would end in denormals, which are slow.
  const Tensor table = ops().tensor(kContext, kHeadDim, DType::kF32, Placement::kActivation);
  std::vector<float> angles(int64_t{kContext} * kHeadDim);
  for (size_t i = 0; i < angles.size(); ++i) angles[i] = i % kHeadDim < kHeadDim / 2 ? 0.8F : 0.6F;
  ops().write(angles, table);
  const std::vector<Segment> segments = {{0, 0, 1, kContext / 2}};
  for (auto _ : state) ops().rope(x, kHeadDim, table, segments);
}
BENCHMARK(rope)->UseRealTime();

// With its softmax, of `rows` rows after `past` positions. "bytes" are those of the keys and values
// once; "ops" are two a multiply-add of q·kᵀ and of the weighted values, of visible keys alone.
// range: rows, past, heads, head_dim, causal, bits of a cached number; the last may be negative:
// at reduced precision
void attention(benchmark::State& state) {
  const int rows = static_cast<int>(state.range(0));
  const int past = static_cast<int>(state.range(1));
  const int heads = static_cast<int>(state.range(2));
  const int head_dim = static_cast<int>(state.range(3));
  const bool causal = state.range(4) != 0;
  const int64_t bits = std::abs(state.range(5));
  const DType dtype = bits == 8 ? DType::kI8 : bits == 16 ? DType::kF16 : DType::kF32;
  const int cols = heads * head_dim;
  const int cache_cols = cache_columns(head_dim, dtype);
  const int visible = past + rows;
  const int64_t bytes = int64_t{2} * heads * visible * cache_cols * bytes_per_element(dtype);
  const std::vector<Segment> all = {{0, 0, visible, 0}};
  std::vector<Tensor> caches;
  for (int i = 0; i < 2 * copies_of(bytes); ++i) {
    caches.push_back(ops().tensor(heads * visible, cache_cols, dtype, Placement::kKeys));
    ops().append(random_tensor(visible, cols), caches.back(), visible, all);
  }
  const Tensor q = random_tensor(rows, cols);
  const Tensor out = random_tensor(rows, cols);
  const float scale = 1 / std::sqrt(static_cast<float>(head_dim));
  const Precision precision = state.range(5) < 0 ? Precision::kReduced : Precision::kExact;
  const AttentionShape shape = {heads, heads, head_dim, scale, causal, visible, precision};
  const std::vector<Segment> segments = {{0, 0, rows, past}};
  size_t next = 0;
  for (auto _ : state) {
    ops().attention(q, caches[next], caches[next + 1], shape, segments, out);
    next = (next + 2) % caches.size();
  }
  state.SetBytesProcessed(state.iterations() * bytes);
  const double keys = causal ? past + (rows + 1) / 2.0 : visible;
  state.counters["ops"] =
      benchmark::Counter(4.0 * rows * keys * cols, benchmark::Counter::kIsIterationInvariantRate);
}

void attention_shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"rows", "past", "heads", "dim", "causal", "bits"})->UseRealTime();
  for (const int past : {0, 127, 255}) {
    for (const int bits : {32, -32}) bench->Args({1, past, kHeads, kHeadDim, 1, bits});
  }
  for (const int bits : {32, 16, 8, -32, -16, -8}) {
    bench->Args({1, 799, 32, 80, 1, bits});  // Phi-2 decodes
    bench->Args({1, 2999, 32, 80, 1, bits});
    bench->Args({1, 8191, 1, 80, 1, bits});  // one head, which threads have to share by keys
    bench->Args({770, 0, 32, 80, 1, bits});  // Phi-2 reads an image and its question
  }
  for (const int bits : {32, -32}) bench->Args({729, 0, 16, 72, 0, bits});  // SigLIP
}
BENCHMARK(attention)->Apply(attention_shapes);

// The machine's peak of fp32 multiply-adds in registers, of one thread.
void f32_peak(benchmark::State& state) {
  const char* isa = std::getenv("OCELLI_ISA");
  const cpu::PeakLoop loop = cpu::limit_loops(cpu::select_table(isa ? isa : "").isa).f32;
  int64_t operations = 0;
  for (auto _ : state) operations += loop(100'000);
  state.counters["ops"] =
      benchmark::Counter(static_cast<double>(operations), benchmark::Counter::kIsRate);
}
BENCHMARK(f32_peak);

// fc2(silu(fc1 x) · gate x) with its three matrices.
void swiglu(benchmark::State& state) {
  const int group = static_cast<int>(state.range(1));
  Weights up(kDim, kHidden, group);
  Weights down(kHidden, kDim, group);
  const Tensor x = random_tensor(static_cast<int>(state.range(0)), kDim);
  const Tensor hidden = random_tensor(x.rows, kHidden);
  const Tensor out = random_tensor(x.rows, kDim);
  for (auto _ : state) {
    const Projection projection = {up.next(), up.next(), hidden, Epilogue::kSilu};
    ops().project(x, nullptr, {&projection, 1}, {});
    ops().linear(hidden, down.next(), out, Epilogue::kAccumulate);
  }
  report(state, int64_t{3} * kDim * kHidden, group);
}
BENCHMARK(swiglu)->ArgNames({"rows", "group"})->UseRealTime()->Args({1, 0})->Args({1, kGroup});

void residual(benchmark::State& state) {
  const Tensor x = random_tensor(1, kDim);
  const Tensor out = random_tensor(1, kDim);
  for (auto _ : state) ops().add(x, out);
}
BENCHMARK(residual)->UseRealTime();

}  // namespace
}  // namespace ocelli::kernels

BENCHMARK_MAIN();
