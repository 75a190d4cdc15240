#include "kernels/checked_ops.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "host/error.h"
#include "kernels/op_checks.h"

namespace ocelli::kernels {
namespace {

// The same matrix in both backends. Views of a pair are views of both.
class PairStorage : public Storage {
 public:
  PairStorage(Tensor left, Tensor right)
      : reference(std::move(left)), candidate(std::move(right)) {}
  const Tensor reference;
  const Tensor candidate;
};

class PairLinear : public LinearWeights {
 public:
  PairLinear(Linear left, Linear right)
      : LinearWeights(left->inputs, left->outputs),
        reference(std::move(left)),
        candidate(std::move(right)) {}
  const Linear reference;
  const Linear candidate;
};

// `view`, whose storage is a pair of matrices, as the same view of one of them. A backend may have
// kept a loaded matrix in another dtype or stride, never in another shape.
Tensor side(const Tensor& view, const Tensor& whole) {
  if (view.cols == 0) return whole.row_range(0, view.rows).column_range(0, 0);
  const PairStorage& pair = static_cast<const PairStorage&>(*view.storage);
  const int width = pair.reference.cols;
  const int row = static_cast<int>(view.offset / width);
  const int col = static_cast<int>(view.offset % width);
  if (view.stride != 0) return whole.row_range(row, view.rows).column_range(col, view.cols);
  Tensor repeated = whole.row_range(row, 1).column_range(col, view.cols);
  repeated.rows = view.rows;
  repeated.stride = 0;
  return repeated;
}
Tensor reference_of(const Tensor& view) {
  if (!view.storage) return {};
  return side(view, static_cast<const PairStorage&>(*view.storage).reference);
}
Tensor candidate_of(const Tensor& view) {
  if (!view.storage) return {};
  return side(view, static_cast<const PairStorage&>(*view.storage).candidate);
}
const PairLinear& pair_of(const Linear& linear) {
  return static_cast<const PairLinear&>(*linear);
}

class CheckedOps : public Ops {
 public:
  CheckedOps(std::unique_ptr<Ops> reference, std::unique_ptr<Ops> candidate, float tolerance)
      : reference_(std::move(reference)),
        candidate_(std::move(candidate)),
        tolerance_(tolerance),
        name_(fmt::format("{}, checked", candidate_->name())) {}

  const char* name() const override { return name_.c_str(); }

  Linear load_linear(const LinearSource& source) override {
    return std::make_shared<PairLinear>(reference_->load_linear(source),
                                        candidate_->load_linear(source));
  }
  DType input_dtype(const Linear& weights) const override {
    return candidate_->input_dtype(pair_of(weights).candidate);
  }
  Tensor load(const HostTensor& source) override {
    return pair(reference_->load(source), candidate_->load(source));
  }
  Tensor tensor(int rows, int cols, DType dtype, Placement placement) override {
    return pair(reference_->tensor(rows, cols, dtype, placement),
                candidate_->tensor(rows, cols, dtype, placement));
  }
  void write(std::span<const float> source, const Tensor& target) override {
    reference_->write(source, reference_of(target));
    candidate_->write(source, candidate_of(target));
  }
  void read(const Tensor& source, std::span<float> target) override {
    candidate_->read(candidate_of(source), target);
  }

  void embed(const Tensor& table, std::span<const int32_t> rows, const Tensor& out) override {
    reference_->embed(reference_of(table), rows, reference_of(out));
    candidate_->embed(candidate_of(table), rows, candidate_of(out));
    compare("embed", out);
  }
  void linear(const Tensor& x, const Linear& weights, const Tensor& out,
              Epilogue epilogue) override {
    const PairLinear& w = pair_of(weights);
    reference_->linear(reference_of(x), w.reference, reference_of(out), epilogue);
    candidate_->linear(candidate_of(x), w.candidate, candidate_of(out), epilogue);
    compare("linear", out);
  }
  void layer_norm(const Tensor& x, const Norm& norm, const Tensor& out) override {
    reference_->layer_norm(reference_of(x), norm_of(norm, reference_of), reference_of(out));
    candidate_->layer_norm(candidate_of(x), norm_of(norm, candidate_of), candidate_of(out));
    compare("layer_norm", out);
  }
  void rms_norm(const Tensor& x, const Norm& norm, const Tensor& out) override {
    reference_->rms_norm(reference_of(x), norm_of(norm, reference_of), reference_of(out));
    candidate_->rms_norm(candidate_of(x), norm_of(norm, candidate_of), candidate_of(out));
    compare("rms_norm", out);
  }
  void rope(const Tensor& x, int head_dim, const Tensor& table,
            std::span<const Segment> segments) override {
    reference_->rope(reference_of(x), head_dim, reference_of(table), segments);
    candidate_->rope(candidate_of(x), head_dim, candidate_of(table), segments);
    compare("rope", x);
  }
  void append(const Tensor& x, const Tensor& cache, int capacity,
              std::span<const Segment> segments) override {
    reference_->append(reference_of(x), reference_of(cache), capacity, segments);
    candidate_->append(candidate_of(x), candidate_of(cache), capacity, segments);
    const Tensor& kept = reference_of(cache);
    const int heads = x.cols / (kept.cols - scale_columns(kept.dtype));
    compare("append", appended(cache, heads, capacity, segments));
  }
  void attention(const Tensor& q, const Tensor& keys, const Tensor& values,
                 const AttentionShape& shape, std::span<const Segment> segments,
                 const Tensor& out) override {
    reference_->attention(reference_of(q), reference_of(keys), reference_of(values), shape,
                          segments, reference_of(out));
    candidate_->attention(candidate_of(q), candidate_of(keys), candidate_of(values), shape,
                          segments, candidate_of(out));
    ++count_;
    for (const Segment& segment : segments) {
      const bool reduced = shape.precision == Precision::kReduced && !segment.sampled;
      compare_part("attention", out.row_range(segment.first_row, segment.rows),
                   reduced ? kReducedAttention : of_row());
    }
  }
  void add(const Tensor& x, const Tensor& out) override {
    reference_->add(reference_of(x), reference_of(out));
    candidate_->add(candidate_of(x), candidate_of(out));
    compare("add", out);
  }
  // The reference has the candidate's very logits since they were compared.
  void argmax(const Tensor& x, std::span<float> scratch, std::span<int32_t> columns) override {
    reference_->argmax(reference_of(x), scratch, columns);
    const std::vector<int32_t> expected(columns.begin(), columns.end());
    candidate_->argmax(candidate_of(x), scratch, columns);
    ++count_;
    for (size_t r = 0; r < expected.size(); ++r) {
      if (columns[r] == expected[r]) continue;
      host::fail("operation {} (argmax of [{}, {}]) diverges at row {}: {} finds {}, {} {}", count_,
                 x.rows, x.cols, r, candidate_->name(), columns[r], reference_->name(),
                 expected[r]);
    }
  }
  void project(const Tensor& x, const Norm* norm, std::span<const Projection> projections,
               const Tensor& normed) override {
    std::vector<Tensor> results;
    std::vector<Projection> own;
    for (const Projection& p : projections) {
      results.push_back(p.out);
      const Linear gate = p.gate ? pair_of(p.gate).candidate : nullptr;
      own.push_back({pair_of(p.weights).candidate, gate, candidate_of(p.out), p.epilogue});
    }
    const Norm own_norm = norm ? norm_of(*norm, candidate_of) : Norm{};
    const std::vector<float> input = candidate_values(x);  // which `normed` may be
    compare_with_parts(
        "project", results,
        [&] {
          candidate_->project(candidate_of(x), norm ? &own_norm : nullptr, own,
                              candidate_of(normed));
          candidate_->write(input, candidate_of(x));
        },
        [&] { Ops::project(x, norm, projections, normed); });
  }
  void linear_sum(std::span<const Term> terms, const Tensor& out) override {
    std::vector<Term> own;
    for (const Term& term : terms) {
      own.push_back({candidate_of(term.x), pair_of(term.weights).candidate});
    }
    compare_with_parts(
        "linear_sum", {out}, [&] { candidate_->linear_sum(own, candidate_of(out)); },
        [&] { Ops::linear_sum(terms, out); });
  }
  void append_rotated(const Tensor& qkv, const Tensor& angles, const LayerCache& cache,
                      std::span<const Segment> segments) override {
    LayerCache own = cache;
    own.keys = candidate_of(cache.keys);
    own.values = candidate_of(cache.values);
    check_append_rotated(candidate_of(qkv), candidate_of(angles), own, segments);
    std::vector<Tensor> results = {
        qkv.column_range(0, qkv.cols - 2 * cache.kv_heads * cache.head_dim)};
    for (const Tensor& kept : {cache.keys, cache.values}) {
      for (Tensor& rows : appended(kept, cache.kv_heads, cache.capacity, segments)) {
        results.push_back(std::move(rows));
      }
    }
    const std::vector<float> input = candidate_values(qkv);  // whose keys may be lost
    compare_with_parts(
        "append_rotated", results,
        [&] { candidate_->append_rotated(candidate_of(qkv), candidate_of(angles), own, segments); },
        [&] {
          candidate_->write(input, candidate_of(qkv));
          Ops::append_rotated(qkv, angles, cache, segments);
        });
  }

 private:
  // What append() of the rows of `segments` writes to a cache of `heads` heads.
  static std::vector<Tensor> appended(const Tensor& cache, int heads, int capacity,
                                      std::span<const Segment> segments) {
    std::vector<Tensor> written;
    for (const Segment& segment : segments) {
      for (int head = 0; head < heads; ++head) {
        // It fits an int: the backends have found it inside the cache.
        const int64_t first = cache_row(heads, capacity, segment.sequence, head) + segment.past;
        written.push_back(cache.row_range(static_cast<int>(first), segment.rows));
      }
    }
    return written;
  }

  static Tensor pair(Tensor reference, Tensor candidate) {
    // The pair's own numbers are those of a dense matrix: side() finds rows and columns from them.
    const int rows = reference.rows;
    const int cols = reference.cols;
    return {std::make_shared<PairStorage>(std::move(reference), std::move(candidate)),
            DType::kF32,
            rows,
            cols,
            cols,
            0};
  }
  static Norm norm_of(const Norm& norm, Tensor (*of)(const Tensor&)) {
    return {of(norm.weight), of(norm.bias), norm.epsilon};
  }

  void compare(const char* operation, const Tensor& result) {
    compare(operation, std::vector<Tensor>{result});
  }

  // The parts of a result that one operation wrote; in a message, rows count from their part's
  // first.
  void compare(const char* operation, const std::vector<Tensor>& results) {
    ++count_;
    for (const Tensor& result : results) compare_part(operation, result, of_row());
  }

  // Runs a compound operation on the candidate, then its parts one by one, on both sides and
  // compared; and compares what the two leave in `results`.
  template <typename Whole, typename Parts>
  void compare_with_parts(const char* operation, const std::vector<Tensor>& results,
                          const Whole& whole, const Parts& parts) {
    std::vector<std::vector<float>> before;
    std::vector<std::vector<float>> after;
    for (const Tensor& result : results) before.push_back(candidate_values(result));
    whole();
    for (const Tensor& result : results) after.push_back(candidate_values(result));
    for (size_t i = 0; i < results.size(); ++i) {
      candidate_->write(before[i], candidate_of(results[i]));
    }
    const int64_t number = count_;
    parts();
    count_ = number;
    for (size_t i = 0; i < results.size(); ++i) {
      candidate_->write(after[i], candidate_of(results[i]));
    }
    compare(operation, results);
  }
  std::vector<float> candidate_values(const Tensor& tensor) {
    std::vector<float> values(static_cast<size_t>(tensor.rows) * tensor.cols);
    candidate_->read(candidate_of(tensor), values);
    return values;
  }

  // What an element may be off by: a share of the largest magnitude in its row, or among all.
  struct Tolerance {
    float share;
    bool of_all;
  };
  // Ops' bound is a share of the largest value, which is no smaller than the largest result; the
  // rest is for queries and keys in bf16, unless scores are so large that nothing is left to check.
  static constexpr Tolerance kReducedAttention = {0x1p-5F, true};
  Tolerance of_row() const { return {tolerance_, false}; }

  void compare_part(const char* operation, const Tensor& result, const Tolerance& tolerance) {
    const size_t size = static_cast<size_t>(result.rows) * result.cols;
    expected_.resize(size);
    found_.resize(size);
    reference_->read(reference_of(result), expected_);
    candidate_->read(candidate_of(result), found_);
    // What is rounded to bf16 may fall to either side.
    const bool rounded = candidate_of(result).dtype == DType::kBF16;
    const float share = rounded ? std::max(tolerance.share, 0x1p-7F) : tolerance.share;
    const float all = tolerance.of_all ? largest_of(expected_) : 0;
    for (int r = 0; r < result.rows; ++r) {
      const auto row = std::span(expected_).subspan(static_cast<size_t>(r) * result.cols);
      const float largest = tolerance.of_all ? all : largest_of(row.first(result.cols));
      compare_row(operation, result, r, share * largest);
    }
    reference_->write(found_, reference_of(result));
  }

  // The largest magnitude among those that are finite.
  static float largest_of(std::span<const float> values) {
    float largest = 0;
    for (const float value : values) {
      if (std::isfinite(value)) largest = std::max(largest, std::fabs(value));
    }
    return largest;
  }

  void compare_row(const char* operation, const Tensor& result, int row, float allowed) const {
    const float* expected = expected_.data() + static_cast<size_t>(row) * result.cols;
    const float* found = found_.data() + static_cast<size_t>(row) * result.cols;
    for (int c = 0; c < result.cols; ++c) {
      const bool both_nan = std::isnan(expected[c]) && std::isnan(found[c]);
      if (both_nan || expected[c] == found[c]) continue;
      const float error = std::fabs(expected[c] - found[c]);
      if (std::isfinite(error) && error <= allowed) continue;
      host::fail("operation {} ({} into [{}, {}]) diverges at ({}, {}): {} computes {}, {} {}",
                 count_, operation, result.rows, result.cols, row, c, candidate_->name(), found[c],
                 reference_->name(), expected[c]);
    }
  }

  std::unique_ptr<Ops> reference_;
  std::unique_ptr<Ops> candidate_;
  float tolerance_;
  std::string name_;
  int64_t count_ = 0;
  std::vector<float> expected_;
  std::vector<float> found_;
};

}  // namespace

std::unique_ptr<Ops> make_checked_ops(std::unique_ptr<Ops> reference,
                                      std::unique_ptr<Ops> candidate, float tolerance) {
  return std::make_unique<CheckedOps>(std::move(reference), std::move(candidate), tolerance);
}

}  // namespace ocelli::kernels
