// Reading rows of a tensor from files, by position and on another thread.
//
// Positional reads rather than memory maps: the kernel copies from its cache into the tensor, which is the one copy
// that a batch needs anyway, and a file that shrinks gives a short read instead of a fault that ends the process.
#include "environment.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

namespace miro {
namespace {

// What became of a row.
enum RowStatus : uint8_t { kRead = 0, kShort = 1, kFailed = 2, kChanged = 3, kSkipped = 4 };

struct Row {
  int descriptor;
  int64_t offset, length;
  double sizeBytes, mtimeUs;     // of the file, when its layout was learnt
};

struct ReadRows {
  napi_async_work work = nullptr;
  napi_deferred deferred = nullptr;
  napi_ref cancelled = nullptr;  // keeps the flag's memory
  const int32_t* cancelFlag = nullptr;
  at::Tensor target;             // keeps the memory while the thread writes
  char* data = nullptr;
  int64_t stride = 0;
  std::vector<Row> rows;
  std::vector<uint8_t> status;
};

uint8_t readRow(const Row& row, char* target) {
  for (int64_t done = 0; done < row.length;) {
    const ssize_t count =
        ::pread(row.descriptor, target + done, static_cast<size_t>(row.length - done), row.offset + done);
    if (count == 0) return kShort;
    if (count < 0) {
      if (errno == EINTR) continue;
      return kFailed;
    }
    done += count;
  }
  // Looked at behind the read: whoever wrote to the file before has moved its time.
  struct stat now;
  if (::fstat(row.descriptor, &now) != 0) return kFailed;
  const double mtimeUs = static_cast<double>(now.st_mtim.tv_sec) * 1e6 + static_cast<double>(now.st_mtim.tv_nsec) / 1e3;
  // JavaScript's times are milliseconds in a double; a microsecond is what survives.
  const double difference = mtimeUs - row.mtimeUs;
  if (static_cast<double>(now.st_size) != row.sizeBytes || difference > 1.5 || difference < -1.5) return kChanged;
  return kRead;
}

void execute(napi_env, void* data) {
  auto& job = *static_cast<ReadRows*>(data);
  for (size_t i = 0; i < job.rows.size(); ++i) {
    if (__atomic_load_n(job.cancelFlag, __ATOMIC_RELAXED) != 0) {
      std::fill(job.status.begin() + static_cast<std::ptrdiff_t>(i), job.status.end(), kSkipped);
      return;
    }
    const Row& row = job.rows[i];
    char* target = job.data + static_cast<int64_t>(i) * job.stride;
    job.status[i] = readRow(row, target);
    const int64_t valid = job.status[i] == kRead ? row.length : 0;
    std::memset(target + valid, 0, static_cast<size_t>(job.stride - valid));
  }
}

void complete(napi_env env, napi_status status, void* data) {
  std::unique_ptr<ReadRows> job(static_cast<ReadRows*>(data));
  napi_value result = nullptr, buffer = nullptr;
  void* bytes = nullptr;
  if (status != napi_ok) std::fill(job->status.begin(), job->status.end(), kSkipped);
  if (napi_create_arraybuffer(env, job->status.size(), &bytes, &buffer) == napi_ok &&
      napi_create_typedarray(env, napi_uint8_array, job->status.size(), buffer, 0, &result) == napi_ok) {
    if (!job->status.empty()) std::memcpy(bytes, job->status.data(), job->status.size());
    napi_resolve_deferred(env, job->deferred, result);
  }
  napi_delete_reference(env, job->cancelled);
  napi_delete_async_work(env, job->work);
}

// The values of a typed array that has exactly `count` of them.
template <typename T>
const T* valuesOf(Environment& e, napi_value v, napi_typedarray_type type, size_t count, const char* what) {
  const auto [data, length] = toTypedArray(e, v, type, what);
  if (length != count) {
    throw UsageError{std::string(what) + ": expected " + std::to_string(count) + " numbers, got " +
                     std::to_string(length)};
  }
  return static_cast<const T*>(data);
}

// readRows(target, descriptors: Int32Array, places: Float64Array, cancelled: Int32Array): Promise<Uint8Array>
// Row i of the target, a contiguous CPU tensor, receives bytes of a file and zeros behind them. places holds four
// numbers a row: offset and length in bytes, then the file's size in bytes and modification time in microseconds as
// they must still be.
napi_value readRows(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 4) throw UsageError{"readRows(target, descriptors, places, cancelled)"};
  auto job = std::make_unique<ReadRows>();
  job->target = e.tensor(handleAt(e, argv, argc, 0));
  const at::Tensor& target = job->target;
  const bool isPlain = target.is_cpu() && target.is_contiguous() && hasValues(target);
  if (!isPlain || target.dim() < 1 || target.requires_grad()) {
    throw UsageError{"readRows: the target must be a contiguous CPU tensor with rows and with memory of its own, "
                     "without gradient, got " + describe(target)};
  }
  const auto count = static_cast<size_t>(target.size(0));
  job->stride = count == 0 ? 0 : static_cast<int64_t>(target.nbytes() / count);
  const auto* descriptors = valuesOf<int32_t>(e, argv[1], napi_int32_array, count, "readRows: descriptors");
  const auto* places = valuesOf<double>(e, argv[2], napi_float64_array, 4 * count, "readRows: places");
  job->cancelFlag = valuesOf<int32_t>(e, argv[3], napi_int32_array, 1, "readRows: cancelled");
  job->rows.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const double* place = places + 4 * i;
    if (!(place[0] >= 0 && place[0] < 9e15 && place[1] >= 0 && place[1] <= static_cast<double>(job->stride))) {
      throw UsageError{"readRows: row " + std::to_string(i) + " needs an offset and at most " +
                       std::to_string(job->stride) + " bytes"};
    }
    job->rows.push_back(
        {descriptors[i], static_cast<int64_t>(place[0]), static_cast<int64_t>(place[1]), place[2], place[3]});
  }
  job->status.assign(count, kSkipped);
  job->data = count == 0 ? nullptr : static_cast<char*>(target.mutable_data_ptr());

  napi_value promise, name;
  check(e, napi_create_string_utf8(e.env, "readRows", NAPI_AUTO_LENGTH, &name));
  check(e, napi_create_reference(e.env, argv[3], 1, &job->cancelled));
  check(e, napi_create_promise(e.env, &job->deferred, &promise));
  check(e, napi_create_async_work(e.env, nullptr, name, execute, complete, job.get(), &job->work));
  check(e, napi_queue_async_work(e.env, job->work));
  job.release();  // complete() owns it
  return promise;
}

}  // namespace

const std::vector<Binding> kFileBindings = {{"readRows", readRows}};

}  // namespace miro
