#include "kernels/cpu/cpu_ops.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "host/error.h"
#include "host/thread_pool.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/host_storage.h"
#include "kernels/op_checks.h"

namespace ocelli::kernels {
namespace {

using cpu::AttentionBlock;
using cpu::KernelTable;
using cpu::LinearBlock;
using cpu::Rows;

// A task of a linear operation: this many outputs for this many rows. The weights of a task and its
// rows fit L2 together at the widths of the models (2,560: 245 KB + 655 KB).
constexpr int kTaskOutputs = 48;
constexpr int kTaskRows = 64;
// Multiplications below which a second thread costs more than it brings.
constexpr int64_t kSmallProduct = 40'000;
// Elements below which the same is true of an operation that only passes over rows.
constexpr int64_t kSmallPass = 8'000;

// Each matrix stays where the checkpoint mapped it; biases become fp32.
class CpuLinear : public LinearWeights {
 public:
  struct Part {
    Rows weight;
    int first_output;
    int outputs;
  };

  CpuLinear(const KernelTable& table, const LinearSource& source, int output_count)
      : LinearWeights(static_cast<int>(source.weights[0].shape[1]), output_count) {
    if (!source.biases.empty()) bias_.resize(output_count);
    int first = 0;
    for (size_t i = 0; i < source.weights.size(); ++i) {
      const HostTensor& weight = source.weights[i];
      const int count = static_cast<int>(weight.shape[0]);
      parts_.push_back({{const_cast<std::byte*>(weight.data), inputs, weight.dtype}, first, count});
      if (!source.biases.empty()) {
        table.to_f32(source.biases[i].dtype, source.biases[i].data, count, bias_.data() + first);
      }
      first += count;
    }
  }

  const std::vector<Part>& parts() const { return parts_; }
  const float* bias() const { return bias_.empty() ? nullptr : bias_.data(); }

 private:
  std::vector<Part> parts_;
  std::vector<float> bias_;
};

Rows rows_of(const Tensor& tensor) {
  return {host_address(tensor), tensor.stride, tensor.dtype};
}

Rows shifted(Rows rows, int64_t row, int64_t col) {
  rows.data += (row * rows.stride + col) * bytes_per_element(rows.dtype);
  return rows;
}

int ceil_div(int a, int b) {
  return a / b + (a % b != 0 ? 1 : 0);
}

class CpuOps : public HostOps {
 public:
  explicit CpuOps(const CpuOptions& options)
      : table_(cpu::select_table(options.isa)),
        pool_(options.threads > 0 ? options.threads : host::available_processors()),
        scores_(pool_.size()) {}

  const char* name() const override { return "cpu"; }

  Linear load_linear(const LinearSource& source) override {
    return std::make_shared<CpuLinear>(table_, source, check_linear_source(source));
  }

  // Vectors become fp32 once; tables are read in place, row by row.
  Tensor load(const HostTensor& source) override {
    if (source.shape.size() != 1) return HostOps::load(source);
    const int n = static_cast<int>(source.shape[0]);
    Tensor copy = tensor(1, n, DType::kF32, Placement::kWeight);
    table_.to_f32(source.dtype, source.data, n, rows_of(copy).f32(0));
    return copy;
  }

  void embed(const Tensor& table, std::span<const int32_t> rows, const Tensor& out) override {
    check_embed(table, rows, out);
    const Rows from = rows_of(table);
    const Rows to = rows_of(out);
    for (int i = 0; i < out.rows; ++i) {
      table_.to_f32(from.dtype, shifted(from, rows[i], 0).data, out.cols, to.f32(i));
    }
  }

  void linear(const Tensor& x, const Linear& weights, const Tensor& out,
              Epilogue epilogue) override {
    const auto& w = static_cast<const CpuLinear&>(*weights);
    check_linear(x, w, out);
    for (const CpuLinear::Part& part : w.parts()) {
      const LinearBlock whole = {rows_of(x),
                                 part.weight,
                                 w.bias() ? w.bias() + part.first_output : nullptr,
                                 shifted(rows_of(out), 0, part.first_output),
                                 x.rows,
                                 w.inputs,
                                 part.outputs,
                                 epilogue};
      run_linear(whole);
    }
  }

  void layer_norm(const Tensor& x, const Norm& norm, const Tensor& out) override {
    check_layer_norm(x, norm, out);
    const float* weight = rows_of(norm.weight).f32(0);
    const float* bias = rows_of(norm.bias).f32(0);
    each_row(x.rows, x.cols, [&, from = rows_of(x), to = rows_of(out)](int row) {
      table_.layer_norm(from.f32(row), weight, bias, norm.epsilon, x.cols, to.f32(row));
    });
  }

  void rms_norm(const Tensor& x, const Norm& norm, const Tensor& out) override {
    check_rms_norm(x, norm, out);
    const float* weight = rows_of(norm.weight).f32(0);
    each_row(x.rows, x.cols, [&, from = rows_of(x), to = rows_of(out)](int row) {
      table_.rms_norm(from.f32(row), weight, norm.epsilon, x.cols, to.f32(row));
    });
  }

  void rope(const Tensor& x, int head_dim, const Tensor& table,
            std::span<const Segment> segments) override {
    check_rope(x, head_dim, table, segments);
    const Rows angles = rows_of(table);
    for (const Segment& segment : segments) {
      each_row(segment.rows, x.cols, [&, data = rows_of(x)](int i) {
        float* row = data.f32(segment.first_row + i);
        for (int head = 0; head < x.cols; head += head_dim) {
          table_.rope(row + head, angles.f32(segment.past + i), table.cols / 2);
        }
      });
    }
  }

  void append(const Tensor& x, const Tensor& cache, int capacity,
              std::span<const Segment> segments) override {
    check_append(x, cache, capacity, segments);
    const Rows from = rows_of(x);
    for (const Segment& segment : segments) {
      const Rows to =
          shifted(rows_of(cache), segment.sequence * int64_t{capacity} + segment.past, 0);
      each_row(segment.rows, x.cols, [&](int i) {
        const float* source = from.f32(segment.first_row + i);
        std::byte* target = shifted(to, i, 0).data;
        if (cache.dtype == DType::kF16) {
          table_.to_f16(source, x.cols, reinterpret_cast<uint16_t*>(target));
        } else {
          std::memcpy(target, source, x.cols * sizeof(float));
        }
      });
    }
  }

  void attention(const Tensor& q, const Tensor& keys, const Tensor& values,
                 const AttentionShape& shape, std::span<const Segment> segments,
                 const Tensor& out) override {
    check_attention({q, keys, values, out}, shape, segments);
    grow_scores(shape.capacity);
    for (const Segment& segment : segments) {
      const int blocks = ceil_div(segment.rows, cpu::kAttentionRows);
      const int visible = segment.past + segment.rows;
      const auto task = [&](int index, int thread) {
        const int head = index % shape.heads;
        const int row = index / shape.heads * cpu::kAttentionRows;
        const int kv_col = head / (shape.heads / shape.kv_heads) * shape.head_dim;
        const int64_t kv_row = segment.sequence * int64_t{shape.capacity};
        AttentionBlock block;
        block.q = shifted(rows_of(q), segment.first_row + row, head * shape.head_dim);
        block.keys = shifted(rows_of(keys), kv_row, kv_col);
        block.values = shifted(rows_of(values), kv_row, kv_col);
        block.out = shifted(rows_of(out), segment.first_row + row, head * shape.head_dim);
        block.scores = scores_[thread].get();
        block.rows = std::min(cpu::kAttentionRows, segment.rows - row);
        block.head_dim = shape.head_dim;
        block.first_visible = shape.causal ? segment.past + row + 1 : visible;
        block.visible_step = shape.causal ? 1 : 0;
        block.scale = shape.scale;
        table_.attention(block);
      };
      // Blocks of one head follow one another badly for the cache but well for balance.
      const int64_t products = int64_t{segment.rows} * visible * q.cols;
      each_task(blocks * shape.heads, products < kSmallProduct, task);
    }
  }

  void add(const Tensor& x, const Tensor& out) override {
    check_add(x, out);
    each_row(out.rows, out.cols, [&, from = rows_of(x), to = rows_of(out)](int row) {
      table_.add(from.f32(row % x.rows), out.cols, to.f32(row));
    });
  }

 private:
  // Makes room for the scores of a sequence of `capacity` keys. A model's capacity stays the same,
  // so that only its first attention allocates.
  void grow_scores(int capacity) {
    if (capacity <= scores_capacity_) return;
    for (std::unique_ptr<float[]>& scores : scores_) {
      scores = std::make_unique_for_overwrite<float[]>(int64_t{capacity} * cpu::kAttentionRows);
    }
    scores_capacity_ = capacity;
  }

  void run_linear(const LinearBlock& whole) {
    const int strips = ceil_div(whole.outputs, kTaskOutputs);
    const int row_blocks = ceil_div(whole.rows, kTaskRows);
    const auto task = [&](int index, int) {
      const int strip = index % strips * kTaskOutputs;
      const int row = index / strips * kTaskRows;
      LinearBlock block = whole;
      block.x = shifted(whole.x, row, 0);
      block.weight = shifted(whole.weight, strip, 0);
      block.bias = whole.bias ? whole.bias + strip : nullptr;
      block.out = shifted(whole.out, row, strip);
      block.rows = std::min(kTaskRows, whole.rows - row);
      block.outputs = std::min(kTaskOutputs, whole.outputs - strip);
      table_.linear(block);
    };
    const int64_t products = int64_t{whole.rows} * whole.outputs * whole.inputs;
    each_task(strips * row_blocks, products < kSmallProduct, task);
  }

  template <typename Task>
  void each_task(int count, bool small, const Task& task) {
    if (small) {
      for (int i = 0; i < count; ++i) task(i, 0);
    } else {
      pool_.parallel_for(count, task);
    }
  }

  // Calls body(row) for every row, in groups that are worth a task.
  template <typename Body>
  void each_row(int rows, int cols, const Body& body) {
    const int group = std::max<int>(1, static_cast<int>(kSmallPass / 2 / std::max(cols, 1)));
    const auto task = [&](int index, int) {
      const int first = index * group;
      const int end = first + std::min(group, rows - first);
      for (int row = first; row < end; ++row) body(row);
    };
    each_task(ceil_div(rows, group), int64_t{rows} * cols < kSmallPass, task);
  }

  const KernelTable& table_;
  host::ThreadPool pool_;
  // Per thread: the scores of one AttentionBlock, for as many keys as scores_capacity_.
  std::vector<std::unique_ptr<float[]>> scores_;
  int scores_capacity_ = 0;
};

}  // namespace

std::unique_ptr<Ops> make_cpu_ops(const CpuOptions& options) {
  return std::make_unique<CpuOps>(options);
}

}  // namespace ocelli::kernels
