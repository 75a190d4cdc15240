#include "kernels/cpu/cpu_ops.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "host/thread_pool.h"
#include "kernels/cpu/cpu_attention.h"
#include "kernels/cpu/cpu_cache.h"
#include "kernels/cpu/cpu_linear.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/tasks.h"
#include "kernels/first_maximum.h"
#include "kernels/host_storage.h"
#include "kernels/op_checks.h"

namespace ocelli::kernels {
namespace {

// Values of a row below which a second thread costs more than it brings to finding the largest.
constexpr int kSmallestPart = 4'000;

using cpu::KernelTable;
using cpu::Rows;
using cpu::rows_of;
using cpu::shifted;

class CpuOps : public HostOps {
 public:
  explicit CpuOps(const CpuOptions& options)
      : table_(cpu::select_table(options.isa)),
        pool_(options.threads > 0 ? options.threads : host::available_processors()),
        linear_(table_, pool_),
        cache_(table_, pool_),
        attention_(table_, pool_) {}

  const char* name() const override { return "cpu"; }

  Linear load_linear(const LinearSource& source) override { return linear_.load(source); }

  DType input_dtype(const Linear& weights) const override {
    return table_.waits_in_bf16 && linear_.rounds(weights) ? DType::kBF16 : DType::kF32;
  }

  // Vectors become fp32 once; tables are read in place, row by row.
  Tensor load(const HostTensor& source) override {
    if (source.shape.size() != 1 || source.quantised()) return HostOps::load(source);
    const int n = static_cast<int>(source.shape[0]);
    Tensor copy = tensor(1, n, DType::kF32, Placement::kWeight);
    table_.to_f32(source.dtype, source.data, n, rows_of(copy).f32(0));
    return copy;
  }

  void embed(const Tensor& table, std::span<const int32_t> rows, const Tensor& out) override {
    check_embed(table, rows, out);
    each_row(out.rows, out.cols, [&, from = rows_of(table), to = rows_of(out)](int i) {
      if (table.dtype == DType::kI8) {
        QuantisedTable::read_row(table, rows[i], to.f32(i));
      } else {
        table_.to_f32(from.dtype, shifted(from, rows[i], 0).data, out.cols, to.f32(i));
      }
    });
  }

  void linear(const Tensor& x, const Linear& weights, const Tensor& out,
              Epilogue epilogue) override {
    check_linear(x, *weights, out, epilogue);
    linear_.run(x, weights, out, epilogue);
  }

  void project(const Tensor& x, const Norm* norm, std::span<const Projection> projections,
               const Tensor& normed) override {
    check_project(x, norm, projections, normed);
    if (projections.empty()) return;
    if (linear_.share_rows(projections)) {
      linear_.project_shared(x, norm, projections);
      return;
    }
    if (norm) normalise(x, *norm, normed);
    linear_.project_each(norm ? normed : x, projections);
  }

  void linear_sum(std::span<const Term> terms, const Tensor& out) override {
    for (const Term& term : terms) check_linear(term.x, *term.weights, out, Epilogue::kAccumulate);
    linear_.run_sum(terms, out);
  }

  // In parts, as the threads have computed them where x is a product of one row.
  void argmax(const Tensor& x, std::span<float> scratch, std::span<int32_t> columns) override {
    check_argmax(x, scratch.size(), columns.size());
    const int parts = std::min(2 * pool_.size(), cpu::ceil_div(x.cols, kSmallestPart));
    if (!table_.first_largest) {
      HostOps::argmax(x, scratch, columns);
      return;
    }
    peaks_.resize(static_cast<size_t>(x.rows) * parts);
    pool_.parallel_for(x.rows * parts, [&, from = rows_of(x)](int index, int) {
      const auto first = static_cast<int>(int64_t{x.cols} * (index % parts) / parts);
      const auto end = static_cast<int>(int64_t{x.cols} * (index % parts + 1) / parts);
      Peak& peak = peaks_[index];
      peak.column =
          first + table_.first_largest(from.f32(index / parts) + first, end - first, &peak.value);
    });
    for (int r = 0; r < x.rows; ++r) {
      columns[r] = likeliest(std::span(peaks_).subspan(static_cast<size_t>(r) * parts, parts));
    }
  }

  void layer_norm(const Tensor& x, const Norm& norm, const Tensor& out) override {
    check_layer_norm(x, norm, out);
    norm_rows(x, norm, out);
  }

  void rms_norm(const Tensor& x, const Norm& norm, const Tensor& out) override {
    check_rms_norm(x, norm, out);
    norm_rows(x, {norm.weight, {}, norm.epsilon}, out);
  }

  void rope(const Tensor& x, int head_dim, const Tensor& table,
            std::span<const Segment> segments) override {
    check_rope(x, head_dim, table, segments);
    const Rows angles = rows_of(table);
    for (const Segment& segment : segments) {
      each_row(segment.rows, x.cols, [&, data = rows_of(x)](int i) {
        cpu::rotate_row(table_, data.f32(segment.first_row + i), x.cols, head_dim,
                        angles.f32(segment.past + i), table.cols / 2);
      });
    }
  }

  void append(const Tensor& x, const Tensor& cache, int capacity,
              std::span<const Segment> segments) override {
    check_append(x, cache, capacity, segments);
    cache_.append(x, cache, capacity, segments);
  }

  void append_rotated(const Tensor& qkv, const Tensor& angles, const LayerCache& cache,
                      std::span<const Segment> segments) override {
    check_append_rotated(qkv, angles, cache, segments);
    cache_.append_rotated(qkv, angles, cache, segments);
  }

  void attention(const Tensor& q, const Tensor& keys, const Tensor& values,
                 const AttentionShape& shape, std::span<const Segment> segments,
                 const Tensor& out) override {
    check_attention({q, keys, values, out}, shape, segments);
    attention_.run({q, keys, values, out}, shape, segments);
  }

  void add(const Tensor& x, const Tensor& out) override {
    check_add(x, out);
    each_row(out.rows, out.cols, [&, from = rows_of(x), to = rows_of(out)](int row) {
      table_.add(from.f32(row % x.rows), out.cols, to.f32(row));
    });
  }

 private:
  template <typename Body>
  void each_row(int rows, int cols, const Body& body) {
    cpu::each_row(pool_, rows, cols, body);
  }

  void norm_rows(const Tensor& x, const Norm& norm, const Tensor& out) {
    each_row(x.rows, x.cols, [&, from = rows_of(x), to = rows_of(out)](int row) {
      cpu::norm_row(table_, norm, from.f32(row), x.cols, to.f32(row));
    });
  }

  struct Peak {
    float value;
    int column;
  };

  // Of a row's parts, from left to right.
  static int32_t likeliest(std::span<const Peak> parts) {
    Peak best = {-std::numeric_limits<float>::infinity(), kNoMaximum};
    for (const Peak& part : parts) {
      if (std::isnan(part.value)) return kNoMaximum;
      if (part.value > best.value) best = part;
    }
    return best.column;
  }

  const KernelTable& table_;
  host::ThreadPool pool_;
  std::vector<Peak> peaks_;  // of argmax
  cpu::LinearEngine linear_;
  cpu::CacheWriter cache_;
  cpu::AttentionEngine attention_;
};

}  // namespace

std::unique_ptr<Ops> make_cpu_ops(const CpuOptions& options) {
  return std::make_unique<CpuOps>(options);
}

}  // namespace ocelli::kernels
