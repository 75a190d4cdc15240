#include "kernels/cpu/cpu_ops.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "host/thread_pool.h"
#include "kernels/cpu/cpu_attention.h"
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
// Rows that are appended to a cache together, at most.
constexpr int kAppendedTogether = 16;

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
        attention_(table_, pool_) {}

  const char* name() const override { return "cpu"; }

  Linear load_linear(const LinearSource& source) override { return linear_.load(source); }

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
    check_linear(x, *weights, out);
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
    for (const Term& term : terms) check_linear(term.x, *term.weights, out);
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
    const int head_dim = cache.cols - scale_columns(cache.dtype);
    const int heads = x.cols / head_dim;
    int rows = 0;
    bool begins = false;
    for (const Segment& segment : segments) {
      rows += segment.rows;
      begins = begins || segment.past == 0;
    }
    // Several sequences have caches made to measure, so large that in small pages their addresses
    // alone cost a fifth of the time that reading them takes.
    if (begins && cache.rows > int64_t{heads} * capacity) prefer_huge_pages(cache);
    // Some rows at a time, so that a head's are written in one run.
    const int together = std::clamp(rows / (2 * pool_.size()), 1, kAppendedTogether);
    const auto task = [&, from = rows_of(x), to = rows_of(cache)](int index, int) {
      const int first = index * together;
      const int count = std::min(together, rows - first);
      std::array<const float*, kAppendedTogether> sources;
      std::array<int64_t, kAppendedTogether> targets;
      for (int i = 0; i < count; ++i) {
        const Segment* segment = segments.data();
        int row = first + i;
        while (row >= segment->rows) row -= (segment++)->rows;
        sources[i] = from.f32(segment->first_row + row);
        targets[i] = cache_row(heads, capacity, segment->sequence, 0) + segment->past + row;
      }
      for (int head = 0; head < heads; ++head) {
        for (int i = 0; i < count; ++i) {
          append_head(sources[i] + head * head_dim, head_dim,
                      shifted(to, targets[i] + int64_t{head} * capacity, 0));
        }
      }
    };
    const bool small = int64_t{rows} * x.cols < cpu::kSmallPass;
    cpu::each_task(pool_, cpu::ceil_div(rows, together), small, task);
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
  // The values of one head to the first row of `to`.
  void append_head(const float* values, int head_dim, const Rows& to) const {
    if (to.dtype == DType::kF16) {
      table_.to_f16(values, head_dim, reinterpret_cast<uint16_t*>(to.data));
    } else if (to.dtype == DType::kI8) {
      table_.to_i8(values, head_dim, reinterpret_cast<int8_t*>(to.data));
    } else {
      std::memcpy(to.data, values, head_dim * sizeof(float));
    }
  }

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
  cpu::AttentionEngine attention_;
};

}  // namespace

std::unique_ptr<Ops> make_cpu_ops(const CpuOptions& options) {
  return std::make_unique<CpuOps>(options);
}

}  // namespace ocelli::kernels
