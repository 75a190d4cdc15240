#include "kernels/cpu/cpu_ops.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "host/thread_pool.h"
#include "kernels/cpu/cpu_linear.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/tasks.h"
#include "kernels/host_storage.h"
#include "kernels/op_checks.h"

namespace ocelli::kernels {
namespace {

using cpu::AttentionBlock;
using cpu::KernelTable;
using cpu::Rows;
using cpu::rows_of;
using cpu::shifted;

// Multiplications below which a second thread costs more than it brings.
constexpr int64_t kSmallProduct = 40'000;

class CpuOps : public HostOps {
 public:
  explicit CpuOps(const CpuOptions& options)
      : table_(cpu::select_table(options.isa)),
        pool_(options.threads > 0 ? options.threads : host::available_processors()),
        linear_(table_, pool_),
        scores_(pool_.size()) {}

  const char* name() const override { return "cpu"; }

  Linear load_linear(const LinearSource& source) override { return linear_.load(source); }

  // Vectors become fp32 once, as do quantised tensors; other tables are read in place, row by row.
  Tensor load(const HostTensor& source) override {
    if (source.shape.size() != 1 || source.quantised()) return HostOps::load(source);
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
    check_linear(x, *weights, out);
    linear_.run(x, weights, out, epilogue);
  }

  void mlp(const Tensor& x, const Mlp& mlp, const Tensor& hidden, const Tensor& out) override {
    if (!mlp.gate) return Ops::mlp(x, mlp, hidden, out);
    check_linear(x, *mlp.fc1, hidden);
    check_linear(x, *mlp.gate, hidden);
    linear_.run_gated(x, mlp, hidden);
    linear(hidden, mlp.fc2, out, Epilogue::kAccumulate);
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
      const int blocks = cpu::ceil_div(segment.rows, cpu::kAttentionRows);
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
      cpu::each_task(pool_, blocks * shape.heads, products < kSmallProduct, task);
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

  template <typename Body>
  void each_row(int rows, int cols, const Body& body) {
    cpu::each_row(pool_, rows, cols, body);
  }

  const KernelTable& table_;
  host::ThreadPool pool_;
  cpu::LinearEngine linear_;
  // Per thread: the scores of one AttentionBlock, for as many keys as scores_capacity_.
  std::vector<std::unique_ptr<float[]>> scores_;
  int scores_capacity_ = 0;
};

}  // namespace

std::unique_ptr<Ops> make_cpu_ops(const CpuOptions& options) {
  return std::make_unique<CpuOps>(options);
}

}  // namespace ocelli::kernels
