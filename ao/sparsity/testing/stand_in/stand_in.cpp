// An accelerator for machines that have none: its memory is the host's, its kernels are the CPU's.
//
// It is PyTorch's PrivateUse1 backend. Two kinds of tensors live on it, dense ones and sparse ones of the layout COO. A kernel of the
// CPU works on aliases, which are tensors on cpu over the same memory; what it returns is taken over without a copy. As on a GPU, a
// tensor on cpu with dimensions does not mix with tensors on the device.

#include <ATen/ATen.h>
#include <ATen/SparseTensorImpl.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>
#include <torch/version.h>

#include <string>
#include <unordered_map>
#include <unordered_set>

namespace {

using c10::IValue;
using torch::jit::Stack;

constexpr auto kHere = c10::DeviceType::PrivateUse1;
const c10::Device here(kHere, 0);

// Memory

template <class Owner>
c10::DataPtr owned(void* data, Owner owner) {
  return {data, new Owner(std::move(owner)), [](void* kept) { delete static_cast<Owner*>(kept); }, here};
}

struct HostMemory final : c10::Allocator {
#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 3
  c10::DataPtr allocate(size_t size) const override {
#else
  c10::DataPtr allocate(size_t size) override {
#endif
    auto memory = c10::GetCPUAllocator()->allocate(size);
    void* data = memory.get();
    return owned(data, std::move(memory));
  }
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 3
  void copy_data(void* target, const void* source, std::size_t size) const override {
    default_copy_data(target, source, size);
  }
#endif
};

HostMemory memory;
REGISTER_ALLOCATOR(kHere, &memory);

// The one device and its one stream

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override {
    return kHere;
  }
  c10::DeviceIndex deviceCount() const noexcept override {
    return 1;
  }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Device getDevice() const override {
    return here;
  }
  c10::Device exchangeDevice(c10::Device) const override {
    return here;
  }
  c10::Stream getStream(c10::Device) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, here);
  }
  c10::Stream getNewStream(c10::Device device, int) const override {
    return getStream(device);
  }
  c10::Stream exchangeStream(c10::Stream) const noexcept override {
    return getStream(here);
  }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

// Not every release has each of these methods, hence no "override".
struct Hooks final : at::PrivateUse1HooksInterface {
  virtual bool isBuilt() const {
    return true;
  }
  virtual bool isAvailable() const {
    return true;
  }
  virtual bool hasPrimaryContext(c10::DeviceIndex) const {
    return true;
  }
  virtual c10::DeviceIndex deviceCount() const {
    return 1;
  }
  virtual c10::DeviceIndex getCurrentDevice() const {
    return 0;
  }
  virtual void setCurrentDevice(c10::DeviceIndex) const {}
  virtual c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const {
    return 0;
  }
  virtual c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const {
    return 0;
  }
};

Hooks hooks;
const bool registered = (at::RegisterPrivateUse1HooksInterface(&hooks), true);

// Kernels

at::SparseTensorImpl* sparse_impl(const at::Tensor& tensor) {
  return static_cast<at::SparseTensorImpl*>(tensor.unsafeGetTensorImpl());
}

// One call of a kernel of the CPU: the aliases of its arguments, and what became of them.
class Call {
 public:
  at::Tensor to_host(const at::Tensor& tensor) {
    if (!tensor.defined()) {
      return tensor;
    }
    if (!tensor.device().is_privateuseone()) {
      if (tensor.dim() > 0) {
        foreign_ = tensor.device();
      }
      return tensor;
    }
    lies_here_ = true;
    auto known = aliases_.find(tensor.unsafeGetTensorImpl());
    if (known != aliases_.end()) {
      return known->second;
    }
    at::Tensor alias = tensor.is_sparse() ? sparse_alias(tensor) : dense_alias(tensor);
    aliases_.emplace(tensor.unsafeGetTensorImpl(), alias);
    originals_.emplace(alias.unsafeGetTensorImpl(), tensor);
    return alias;
  }

  c10::Storage to_host(const c10::Storage& storage) {
    if (storage.device().type() != kHere) {
      return storage;
    }
    lies_here_ = true;
    auto known = storages_.find(storage.unsafeGetStorageImpl());
    if (known != storages_.end()) {
      return known->second;
    }
    void* data = const_cast<void*>(storage.data());
    c10::Storage alias(
        c10::Storage::use_byte_size_t(), storage.nbytes(), c10::DataPtr(data, c10::DeviceType::CPU), c10::GetCPUAllocator(), true);
    storages_.emplace(storage.unsafeGetStorageImpl(), alias);
    owners_.emplace(alias.unsafeGetStorageImpl(), storage);
    return alias;
  }

  IValue to_host(const IValue& value) {
    if (value.isTensor()) {
      return to_host(value.toTensor());
    }
    if (value.isStorage()) {
      return to_host(value.toStorage());
    }
    if (value.isDevice()) {
      lies_here_ = lies_here_ || value.toDevice().type() == kHere;
      return value.toDevice().type() == kHere ? IValue(c10::Device(c10::DeviceType::CPU)) : value;
    }
    if (value.isTensorList()) {
      c10::List<at::Tensor> aliases;
      for (const at::Tensor& tensor : value.toTensorVector()) {
        aliases.push_back(to_host(tensor));
      }
      return aliases;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> aliases;
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector()) {
        aliases.push_back(tensor.has_value() ? std::optional<at::Tensor>(to_host(*tensor)) : std::nullopt);
      }
      return aliases;
    }
    return value;
  }

  void refuse_foreigners(const std::string& name) const {
    TORCH_CHECK(
        !lies_here_ || !foreign_.has_value(),
        "Expected all tensors to be on the same device, but found at least two devices, ",
        here,
        " and ",
        foreign_->str(),
        "! (in ",
        name,
        ")");
  }

  // An argument that the kernel resized, or set to other storage, is changed likewise.
  void take_over_changes() {
    for (auto& [original, alias] : aliases_) {
      if (alias.is_sparse()) {
        auto* source = sparse_impl(alias);
        auto* target = static_cast<at::SparseTensorImpl*>(original);
        auto indices = to_device(source->indices()), values = to_device(source->values());
        target->raw_resize_(source->sparse_dim(), source->dense_dim(), source->sizes());
        target->set_indices_and_values_unsafe(indices, values);
        target->set_coalesced(source->coalesced());
        continue;
      }
      auto storage = to_device(alias.storage());
      if (storage.unsafeGetStorageImpl() != original->storage().unsafeGetStorageImpl()) {
        original->set_storage_keep_dtype(storage);
      }
      if (alias.sizes() != original->sizes() || alias.strides() != original->strides() ||
          alias.storage_offset() != original->storage_offset()) {
        original->set_sizes_and_strides(alias.sizes(), alias.strides(), alias.storage_offset());
      }
    }
  }

  IValue to_device(const IValue& value) {
    if (!lies_here_) {
      return value;
    }
    if (value.isTensor()) {
      return to_device(value.toTensor());
    }
    if (value.isTensorList()) {
      c10::List<at::Tensor> tensors;
      for (const at::Tensor& tensor : value.toTensorVector()) {
        tensors.push_back(to_device(tensor));
      }
      return tensors;
    }
    return value;
  }

 private:
  at::Tensor dense_alias(const at::Tensor& tensor) {
    auto alias = at::detail::make_tensor<at::TensorImpl>(
        to_host(tensor.storage()), c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
    alias.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
    return alias;
  }

  at::Tensor sparse_alias(const at::Tensor& tensor) {
    return sparse(tensor, c10::DispatchKey::SparseCPU, [this](const at::Tensor& part) { return to_host(part); });
  }

  template <class Convert>
  static at::Tensor sparse(const at::Tensor& tensor, c10::DispatchKey key, Convert convert) {
    auto* source = sparse_impl(tensor);
    auto made = at::detail::make_tensor<at::SparseTensorImpl>(c10::DispatchKeySet(key), tensor.dtype());
    auto* target = sparse_impl(made);
    target->raw_resize_(source->sparse_dim(), source->dense_dim(), source->sizes());
    target->set_indices_and_values_unsafe(convert(source->indices()), convert(source->values()));
    target->set_coalesced(source->coalesced());
    return made;
  }

  c10::Storage to_device(const c10::Storage& storage) {
    auto known = owners_.find(storage.unsafeGetStorageImpl());
    if (known != owners_.end()) {
      c10::Storage owner = known->second;
      if (storage.data() != owner.data()) {  // the kernel resized it
        owner.set_data_ptr_noswap(owned(const_cast<void*>(storage.data()), storage));
      }
      owner.set_nbytes(storage.nbytes());
      return owner;
    }
    c10::Storage owner(
        c10::Storage::use_byte_size_t(), storage.nbytes(), owned(const_cast<void*>(storage.data()), storage), &memory, true);
    owners_.emplace(storage.unsafeGetStorageImpl(), owner);
    return owner;
  }

  at::Tensor to_device(const at::Tensor& tensor) {
    if (!tensor.defined() || !tensor.device().is_cpu()) {
      return tensor;
    }
    auto known = originals_.find(tensor.unsafeGetTensorImpl());
    if (known != originals_.end()) {
      return known->second;
    }
    if (tensor.is_sparse()) {
      return sparse(tensor, c10::DispatchKey::SparsePrivateUse1, [this](const at::Tensor& part) { return to_device(part); });
    }
    auto made = at::detail::make_tensor<at::TensorImpl>(
        to_device(tensor.storage()), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), tensor.dtype());
    made.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
    return made;
  }

  bool lies_here_ = false;
  std::optional<c10::Device> foreign_;
  std::unordered_map<c10::TensorImpl*, at::Tensor> aliases_;
  std::unordered_map<c10::TensorImpl*, at::Tensor> originals_;
  std::unordered_map<c10::StorageImpl*, c10::Storage> storages_;
  std::unordered_map<c10::StorageImpl*, c10::Storage> owners_;
};

void call_on_the_cpu(const c10::OperatorHandle& op, Stack* stack) {
  const auto& schema = op.schema();
  Call call;
  const size_t first = stack->size() - schema.arguments().size();
  for (size_t i = first; i < stack->size(); ++i) {
    (*stack)[i] = call.to_host((*stack)[i]);
  }
  call.refuse_foreigners(schema.name());
  op.callBoxed(stack);
  call.take_over_changes();
  for (size_t i = stack->size() - schema.returns().size(); i < stack->size(); ++i) {
    (*stack)[i] = call.to_device((*stack)[i]);
  }
}

void fallback(const c10::OperatorHandle& op, Stack* stack) {
  call_on_the_cpu(op, stack);
}

c10::OperatorHandle named(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
}

void convolution(const c10::OperatorHandle&, Stack* stack) {
  static const auto op = named("aten::convolution");
  call_on_the_cpu(op, stack);
}

void convolution_backward(const c10::OperatorHandle& overrideable, Stack* stack) {
  static const auto op = named("aten::convolution_backward");
  const auto bias = stack->end() - static_cast<int64_t>(overrideable.schema().arguments().size()) + 3;
  const int64_t channels = (bias - 3)->toTensor().size(1);
  stack->insert(bias, IValue(std::vector<int64_t>{channels}));
  call_on_the_cpu(op, stack);
}

bool given(const std::optional<at::Tensor>& tensor) {
  return tensor.has_value() && tensor->defined();
}

at::Tensor biased(const at::Tensor& gates, const std::optional<at::Tensor>& bias) {
  return given(bias) ? gates + *bias : gates;
}

// PyTorch asks a PrivateUse1 backend for fused recurrent cells, which the CPU does not have; here they are of simple operations.
// A workspace holds what the backward pass needs, side by side.

std::tuple<at::Tensor, at::Tensor, at::Tensor> lstm_cell(
    const at::Tensor& input,
    const at::Tensor& hidden,
    const at::Tensor& cx,
    const std::optional<at::Tensor>& input_bias,
    const std::optional<at::Tensor>& hidden_bias) {
  const auto gates = biased(input, input_bias).add(biased(hidden, hidden_bias)).chunk(4, 1);
  const auto i = gates[0].sigmoid(), f = gates[1].sigmoid(), g = gates[2].tanh(), o = gates[3].sigmoid();
  const auto cy = f * cx + i * g;
  return {o * cy.tanh(), cy, at::cat({i, f, g, o}, 1)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> lstm_cell_backward(
    const std::optional<at::Tensor>& grad_hy,
    const std::optional<at::Tensor>& grad_cy,
    const at::Tensor& cx,
    const at::Tensor& cy,
    const at::Tensor& workspace,
    bool has_bias) {
  const auto gates = workspace.chunk(4, 1);
  const auto &i = gates[0], &f = gates[1], &g = gates[2], &o = gates[3];
  const auto output = cy.tanh();
  const auto to_hy = given(grad_hy) ? *grad_hy : at::zeros_like(cy);
  const auto to_cy = to_hy * o * (1 - output * output) + (given(grad_cy) ? *grad_cy : at::zeros_like(cy));
  const auto to_gates = at::cat(
      {to_cy * g * i * (1 - i), to_cy * cx * f * (1 - f), to_cy * i * (1 - g * g), to_hy * output * o * (1 - o)}, 1);
  return {to_gates, to_cy * f, has_bias ? to_gates.sum(0) : at::Tensor()};
}

std::tuple<at::Tensor, at::Tensor> gru_cell(
    const at::Tensor& input,
    const at::Tensor& hidden,
    const at::Tensor& hx,
    const std::optional<at::Tensor>& input_bias,
    const std::optional<at::Tensor>& hidden_bias) {
  const auto in = biased(input, input_bias).chunk(3, 1), hid = biased(hidden, hidden_bias).chunk(3, 1);
  const auto r = (in[0] + hid[0]).sigmoid(), z = (in[1] + hid[1]).sigmoid(), n = (in[2] + r * hid[2]).tanh();
  return {n + z * (hx - n), at::cat({r, z, n, hx, hid[2]}, 1)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> gru_cell_backward(
    const at::Tensor& grad_hy,
    const at::Tensor& workspace,
    bool has_bias) {
  const auto kept = workspace.chunk(5, 1);
  const auto &r = kept[0], &z = kept[1], &n = kept[2], &hx = kept[3], &hidden = kept[4];
  const auto to_n = grad_hy * (1 - z) * (1 - n * n), to_z = grad_hy * (hx - n) * z * (1 - z), to_r = to_n * hidden * r * (1 - r);
  const auto to_input = at::cat({to_r, to_z, to_n}, 1), to_hidden = at::cat({to_r, to_z, to_n * r}, 1);
  return {
      to_input,
      to_hidden,
      grad_hy * z,
      has_bias ? to_input.sum(0) : at::Tensor(),
      has_bias ? to_hidden.sum(0) : at::Tensor()};
}

at::Tensor empty_strided(
    at::IntArrayRef size,
    at::IntArrayRef stride,
    std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>,
    std::optional<at::Device>,
    std::optional<bool>) {
  constexpr c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_strided_generic(size, stride, &memory, keys, c10::dtype_or_default(dtype));
}

at::Tensor empty(
    at::IntArrayRef size,
    std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>,
    std::optional<at::Device>,
    std::optional<bool>,
    std::optional<at::MemoryFormat> format) {
  constexpr c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_generic(size, &memory, keys, c10::dtype_or_default(dtype), format);
}

// Between devices; the one way in and out.
at::Tensor copy_from(const at::Tensor& source, const at::Tensor& target, bool) {
  Call call;
  call.to_host(target).copy_(call.to_host(source));
  return target;
}

at::Scalar item(const at::Tensor& tensor) {
  Call call;
  return call.to_host(tensor).item();
}

// What has a kernel of its own on the CPU has one here, also where PyTorch has another that serves all devices and stands in the way.
void as_on_the_cpu(torch::Library& library, c10::DispatchKey key, const std::unordered_set<std::string>& except) {
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& name : dispatcher.getAllOpNames()) {
    const auto op = dispatcher.findOp(name);
    const std::string full = c10::toString(name);
    if (op.has_value() && op->hasSchema() && full.rfind("aten::", 0) == 0 && op->hasKernelForDispatchKey(key) && !except.count(full)) {
      library.impl(full.c_str(), torch::CppFunction::makeFromBoxedFunction<&fallback>());
    }
  }
}

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

TORCH_LIBRARY_IMPL(_, SparsePrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", &empty);
  library.impl("empty_strided", &empty_strided);
  library.impl("_copy_from", &copy_from);
  library.impl("_local_scalar_dense", &item);
  library.impl("convolution_overrideable", torch::CppFunction::makeFromBoxedFunction<&convolution>());
  library.impl("convolution_backward_overrideable", torch::CppFunction::makeFromBoxedFunction<&convolution_backward>());
  library.impl("_thnn_fused_lstm_cell", &lstm_cell);
  library.impl("_thnn_fused_lstm_cell_backward_impl", &lstm_cell_backward);
  library.impl("_thnn_fused_gru_cell", &gru_cell);
  library.impl("_thnn_fused_gru_cell_backward", &gru_cell_backward);
  as_on_the_cpu(library, c10::DispatchKey::CPU, {"aten::empty.memory_format", "aten::empty_strided", "aten::_local_scalar_dense"});
}

TORCH_LIBRARY_IMPL(aten, SparsePrivateUse1, library) {
  as_on_the_cpu(library, c10::DispatchKey::SparseCPU, {});
}
