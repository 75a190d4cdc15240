#include "kernels/cpu/cpu_linear.h"

#include <algorithm>

#include "host/error.h"
#include "kernels/cpu/cpu_linear_weights.h"
#include "kernels/cpu/tasks.h"
#include "kernels/op_checks.h"

namespace ocelli::kernels::cpu {
namespace {

// A task of floats: this many outputs for this many rows. The weights of a task and its rows fit L2
// together at the widths of the models (2,560: 245 KB + 655 KB).
constexpr int kTaskOutputs = 48;
constexpr int kTaskRows = 64;
// Multiplications below which a second thread costs more than it brings.
constexpr int64_t kSmallProduct = 40'000;

// `linear` unless it is bf16 in panels, or absent.
const CpuLinear* cpu_linear(const Linear& linear) {
  const bool other = !linear || Bf16Engine::is_one(linear);
  return other ? nullptr : static_cast<const CpuLinear*>(linear.get());
}

const CpuLinear* quantised(const Linear& linear) {
  const CpuLinear* own = cpu_linear(linear);
  return own && !own->int8_parts.empty() ? own : nullptr;
}

}  // namespace

Linear LinearEngine::load(const LinearSource& source) {
  if (!source.weights.empty() && source.weights[0].in_pairs()) return bf16_.load(source);
  auto linear =
      std::make_shared<CpuLinear>(table_, source, check_linear_source(source), ahead_.number());
  if (!linear->int8_parts.empty() && source.weights[0].layout == Layout::kRows) {
    PackedInt8& packed = linear->int8_parts[0].weight;
    pool_.parallel_for(packed.shape().panels(),
                       [&](int panel, int) { packed.pack_panel(source, panel); });
  }
  return linear;
}

void LinearEngine::run(const Tensor& x, const Linear& weights, const Tensor& out,
                       Epilogue epilogue) {
  if (const auto* pairs = Bf16Engine::is_one(weights)) {
    bf16_.run(x, *pairs, out, epilogue);
  } else if (const CpuLinear* w = quantised(weights)) {
    const Int8Engine::Product product = {w, nullptr, &out, epilogue};
    int8_.project(x, nullptr, {&product, 1});
  } else {
    run_floats(x, *cpu_linear(weights), nullptr, out, epilogue);
  }
}

bool LinearEngine::rounds(const Linear& weights) {
  return quantised(weights) || Bf16Engine::is_one(weights);
}

bool LinearEngine::share_rows(std::span<const Projection> projections) {
  const CpuLinear* first = quantised(projections[0].weights);
  return first && std::ranges::all_of(projections, [&](const Projection& p) {
           const CpuLinear* w = quantised(p.weights);
           if (!w || !Int8Engine::share_rows(*first, *w)) return false;
           if (!p.gate) return true;
           const CpuLinear* gate = quantised(p.gate);
           return gate && Int8Engine::share_rows(*first, *gate) && Int8Engine::pair_up(*w, *gate);
         });
}

void LinearEngine::project_shared(const Tensor& x, const Norm* norm,
                                  std::span<const Projection> projections) {
  products_.clear();
  for (const Projection& p : projections) {
    products_.push_back({quantised(p.weights), quantised(p.gate), &p.out, p.epilogue});
  }
  int8_.project(x, norm, products_);
}

void LinearEngine::project_each(const Tensor& x, std::span<const Projection> projections) {
  for (const Projection& p : projections) {
    const CpuLinear* w = cpu_linear(p.weights);
    const CpuLinear* gate = cpu_linear(p.gate);
    if (w && gate && w->float_parts.size() == 1 && gate->float_parts.size() == 1) {
      run_floats(x, *w, gate, p.out, p.epilogue);
    } else if (share_rows({&p, 1})) {
      project_shared(x, nullptr, {&p, 1});
    } else {
      run(x, p.weights, p.out, p.epilogue);
      if (p.gate) run(x, p.gate, p.out, Epilogue::kMultiply);
    }
  }
}

void LinearEngine::run_sum(std::span<const Term> terms, const Tensor& out) {
  for (; !terms.empty(); terms = terms.subspan(1)) {
    const CpuLinear* first = quantised(terms[0].weights);
    const CpuLinear* second = terms.size() > 1 ? quantised(terms[1].weights) : nullptr;
    if (first && second && Int8Engine::pair_up(*first, *second)) {
      int8_.add_both({terms[0].x, *first}, {terms[1].x, *second}, out);
      terms = terms.subspan(1);
    } else {
      run(terms[0].x, terms[0].weights, out, Epilogue::kAccumulate);
    }
  }
}

// The strip of outputs that is number `index` of a linear's floats, of all its parts.
LinearEngine::Strip LinearEngine::strip_of(const CpuLinear& w, int index) {
  size_t part = 0;
  for (; index >= ceil_div(w.float_parts[part].outputs, kTaskOutputs); ++part) {
    index -= ceil_div(w.float_parts[part].outputs, kTaskOutputs);
  }
  const CpuLinear::FloatPart& in = w.float_parts[part];
  const int first = index * kTaskOutputs;
  return {shifted(in.weight, first, 0), in.first_output + first,
          std::min(kTaskOutputs, in.outputs - first)};
}

// With a gate: a block's part of it follows, and is multiplied on.
void LinearEngine::run_floats(const Tensor& x, const CpuLinear& w, const CpuLinear* gate,
                              const Tensor& out, Epilogue epilogue) {
  OCELLI_CHECK(x.dtype == DType::kF32, "rows of {} for a matrix of floats", name(x.dtype));
  int strips = 0;
  for (const CpuLinear::FloatPart& part : w.float_parts) {
    strips += ceil_div(part.outputs, kTaskOutputs);
  }
  ahead_.announce(
      w.id, [&](int thread) { return strip_of(w, pool_.share_begin(strips, thread)).weight.data; });
  const auto block_of_strip = [&](const CpuLinear& of, int index, int row) {
    const Strip strip = strip_of(of, index);
    return LinearBlock{shifted(rows_of(x), row, 0),
                       strip.weight,
                       of.bias(strip.first_output),
                       shifted(rows_of(out), row, strip.first_output),
                       std::min(kTaskRows, x.rows - row),
                       of.inputs,
                       strip.outputs,
                       epilogue};
  };
  const auto task = [&](int index, int) {
    const int row = index / strips * kTaskRows;
    table_.linear(block_of_strip(w, index % strips, row));
    if (!gate) return;
    LinearBlock block = block_of_strip(*gate, index % strips, row);
    block.epilogue = Epilogue::kMultiply;
    table_.linear(block);
  };
  const int64_t products = int64_t{x.rows} * w.outputs * w.inputs;
  each_task(pool_, strips * ceil_div(x.rows, kTaskRows), products < kSmallProduct, task);
}

}  // namespace ocelli::kernels::cpu
