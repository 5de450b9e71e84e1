// c10d's Gloo backend as libtorch_cpu exports it. libtorch ships the header that declares it but not the gloo headers
// which that one includes, so what is used here is declared again: the constructor, the destructor and the default
// options. All else goes through the virtual functions of c10d::Backend. The object's members stay unknown: room is
// left for them.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <cstddef>

namespace c10d {

class TORCH_API ProcessGroupGloo : public Backend {
 public:
  struct TORCH_API Options : public Backend::Options {
    static c10::intrusive_ptr<Options> create_default(std::chrono::milliseconds timeout);

   private:
    Options() = delete;  // made by libtorch only
  };

  explicit ProcessGroupGloo(const c10::intrusive_ptr<Store>& store, int rank, int size,
                            c10::intrusive_ptr<Options> options);
  ~ProcessGroupGloo() override;

 private:
  // The class takes 488 bytes in libtorch 2.13. make_intrusive allocates sizeof(ProcessGroupGloo) of this declaration
  // and libtorch's destructor frees with its own size, which the allocators of glibc and musl ignore.
  alignas(std::max_align_t) std::byte room_[4096];
};

}  // namespace c10d
