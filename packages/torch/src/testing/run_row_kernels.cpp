// Runs the kernels of row_kernels.cu.hpp on a CPU, for tests: `run_row_kernels FOLDER`, compiled with the macros of a
// program and KERNELS, the file with the kernels alone. FOLDER/arguments holds numbers; tensors are read from x,
// gradient, weight and bias there, and written to y, ofInput and partial.
#include "cuda_on_cpu.hpp"

#include KERNELS

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

namespace {

std::string folder;

// Memory for a tensor, with a border on both sides that must stay as it is.
class Buffer {
 public:
  explicit Buffer(size_t bytes) : size_(bytes), memory_(bytes + 2 * kBorder + 64, kFill) {
    const auto start = reinterpret_cast<uintptr_t>(memory_.data());
    offset_ = kBorder + (64 - (start + kBorder) % 64) % 64;
  }
  static Buffer read(const std::string& name) {
    std::ifstream file(folder + "/" + name, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    Buffer buffer(bytes.size());
    std::memcpy(buffer.at<char>(), bytes.data(), bytes.size());
    return buffer;
  }
  template <typename T>
  T* at() {
    return reinterpret_cast<T*>(memory_.data() + offset_);
  }
  void write(const std::string& name) {
    for (size_t i = 0; i < memory_.size(); ++i) {
      if ((i < offset_ || i >= offset_ + size_) && memory_[i] != kFill) {
        std::fprintf(stderr, "%s: a kernel has written outside of it\n", name.c_str());
        std::exit(1);
      }
    }
    std::ofstream(folder + "/" + name, std::ios::binary).write(at<char>(), static_cast<std::streamsize>(size_));
  }

 private:
  static constexpr size_t kBorder = 256;
  static constexpr char kFill = 0x5a;
  size_t size_, offset_ = 0;
  std::vector<char> memory_;
};

}  // namespace

int main(int, char** argv) {
  folder = argv[1];
  std::ifstream numbers(folder + "/arguments");
  Buffer x = Buffer::read("x"), gradient = Buffer::read("gradient");
  unsigned blocks = 0;
#ifdef LANES
  Rows at{}, gradientAt{};
  unsigned count = 0;
  float eps = 0;
  numbers >> blocks >> count >> eps;
  for (Rows* r : {&at, &gradientAt}) numbers >> r->step0 >> r->step1 >> r->step2 >> r->size1 >> r->size2;
  Buffer weight = Buffer::read("weight"), bias = Buffer::read("bias");
  Buffer y(count * WIDTH * sizeof(Out)), ofInput(count * WIDTH * sizeof(In));
  Buffer partial(blocks * (1 + CENTERED) * WIDTH * sizeof(float));
  launch(blocks, THREADS, [&] {
    rowNorm(x.at<In>(), at, weight.at<Weight>(), bias.at<Weight>(), y.at<Out>(), count, eps);
  });
  launch(blocks, THREADS, [&] {
    rowNormBackward(x.at<In>(), at, gradient.at<Out>(), gradientAt, weight.at<Weight>(), ofInput.at<In>(),
                    partial.at<float>(), count, eps);
  });
  partial.write("partial");
#else
  unsigned width = 0, eights = 0;
  numbers >> blocks >> width >> eights;
  Buffer y(8ull * eights * sizeof(Out)), ofInput(16ull * eights * sizeof(In));
  launch(blocks, THREADS, [&] { swiGlu(x.at<In>(), y.at<Out>(), width, eights); });
  launch(blocks, THREADS, [&] { swiGluBackward(x.at<In>(), gradient.at<Out>(), ofInput.at<In>(), width, eights); });
#endif
  y.write("y");
  ofInput.write("ofInput");
  return 0;
}
