// Collectives between processes: c10d's stores, process groups and gradient reducer.
//
// A collective is queued by the calling thread, so that every process issues the same ones in the same order, and
// awaited by a thread that does nothing else, which settles a promise. libuv's pool is no place to wait: it has four
// threads, and a process cannot exit before they are done.
#include "environment.hpp"

#include "gloo.hpp"

#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/comm.hpp>
#include <torch/csrc/distributed/c10d/logger.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#ifdef MIRO_WITH_NCCL
#include "nccl.hpp"
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <thread>
#include <type_traits>

namespace miro {

struct DistributedObject {
  virtual ~DistributedObject() = default;
};

namespace {

using std::chrono::milliseconds;

struct Store : DistributedObject {
  c10::intrusive_ptr<c10d::Store> store;
  int port = 0;
};

struct Group : DistributedObject {
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::Backend> backend;      // for the collectives of this file
  c10::intrusive_ptr<c10d::ProcessGroup> group;   // the same for the reducer
  c10::DeviceType device = c10::DeviceType::CPU;  // where its tensors lie
  c10::DeviceIndex cudaDevice = 0;                // the device that was current when the group was made
  int rank = 0, size = 1;
  milliseconds timeout{0};
  std::atomic<int> underWay{0};      // collectives that a thread awaits
  std::atomic<bool> failed{false};   // one of them has failed
  // A group that nobody destroyed outlives its environment: its destructor waits for what is still under way, and a
  // process must be able to exit while its peers are gone.
  std::shared_ptr<Group>* keptAlive = nullptr;
};

// A group while a collective of it is under way.
class Use {
 public:
  explicit Use(std::shared_ptr<Group> group) : group_(std::move(group)) { ++group_->underWay; }
  Use(const Use& other) : Use(other.group_) {}
  Use& operator=(const Use&) = delete;
  ~Use() { --group_->underWay; }
  Group& operator*() const { return *group_; }

 private:
  std::shared_ptr<Group> group_;
};

struct GradientReducer : DistributedObject {
  std::shared_ptr<Group> group;
  std::shared_ptr<c10d::Reducer> reducer;
  std::shared_ptr<c10d::Logger> logger;
};

int32_t storeObject(Environment& e, std::shared_ptr<DistributedObject> object) {
  const auto empty = std::find(e.distributed.begin(), e.distributed.end(), nullptr);
  const auto id = static_cast<int32_t>(empty - e.distributed.begin());
  if (empty == e.distributed.end()) e.distributed.push_back(std::move(object));
  else *empty = std::move(object);
  return id;
}

template <typename T>
std::shared_ptr<T> objectAt(Environment& e, napi_value* argv, size_t argc, const char* what) {
  const int64_t id = argc > 0 ? toInt(e, argv[0], what) : -1;
  std::shared_ptr<T> found;
  if (id >= 0 && static_cast<size_t>(id) < e.distributed.size())
    found = std::dynamic_pointer_cast<T>(e.distributed[id]);
  if (!found) throw UsageError{std::string("this ") + what + " was destroyed"};
  return found;
}

// ---- promises settled by a thread ---------------------------------------------------------------------------------
// The way back to JavaScript's thread. Node-API frees the function with its environment, whoever still holds it: a
// worker may be terminated while a thread waits for other processes.
struct WayBack {
  std::mutex mutex;
  napi_threadsafe_function settle = nullptr;  // null where the environment has ended
};

struct Job {
  const char* name = "";                            // of the exported function
  std::function<void()> run;                        // on the job's thread
  std::function<napi_value(Environment&)> result;   // back on JavaScript's
  std::string error;
  napi_deferred deferred = nullptr;
  std::shared_ptr<WayBack> back = std::make_shared<WayBack>();
};

void settle(napi_env env, napi_value, void*, void* data) {
  std::unique_ptr<Job> job(static_cast<Job*>(data));
  if (env == nullptr) return;  // the environment ends: nobody waits any more
  Environment* e = nullptr;
  if (napi_get_instance_data(env, reinterpret_cast<void**>(&e)) != napi_ok || e == nullptr) return;
  napi_value value = nullptr;
  if (job->error.empty()) {
    try {
      value = job->result ? job->result(*e) : makeUndefined(*e);
    } catch (...) {
      job->error = namedMessageOf(job->name, std::current_exception());
    }
  }
  if (job->error.empty()) {
    napi_resolve_deferred(env, job->deferred, value);
    return;
  }
  napi_reject_deferred(env, job->deferred, makeError(*e, job->error));
}

// Called before Node-API frees the function.
void settleEnds(napi_env, void* data, void*) {
  const std::unique_ptr<std::shared_ptr<WayBack>> back(static_cast<std::shared_ptr<WayBack>*>(data));
  const std::lock_guard<std::mutex> lock((*back)->mutex);
  (*back)->settle = nullptr;
}

// Hands a job to settle(). Where the environment has ended, it goes.
void handBack(std::unique_ptr<Job> job) {
  const std::shared_ptr<WayBack> back = job->back;
  const std::lock_guard<std::mutex> lock(back->mutex);
  const napi_threadsafe_function function = back->settle;
  if (function == nullptr || napi_call_threadsafe_function(function, job.get(), napi_tsfn_blocking) != napi_ok) return;
  job.release();  // settle() owns it
  napi_release_threadsafe_function(function, napi_tsfn_release);
}

// The threads of jobs. They are kept: c10d never forgets a thread that has waited for a collective, so a new one for
// each would cost memory without end. Each job has a thread at once, as it may wait for one that comes after it.
class Waiters {
 public:
  // Throws where a new thread is needed and none is left.
  void start(std::unique_ptr<Job> job) {
    const std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back(std::move(job));
    if (jobs_.size() <= idle_) return wake_.notify_one();
    try {
      std::thread([this] { work(); }).detach();
    } catch (...) {
      jobs_.pop_back();
      throw;
    }
    ++idle_;
  }

 private:
  [[noreturn]] void work() {
    for (;;) {
      std::unique_ptr<Job> job = next();
      try {
        job->run();
      } catch (...) {
        job->error = namedMessageOf(job->name, std::current_exception());
        if (job->error.empty()) job->error = "unknown error in native code";
      }
      job->run = {};  // lets go of its tensors here
      becomeIdle();   // before JavaScript hears of it, whose next call then finds this thread
      handBack(std::move(job));
    }
  }

  std::unique_ptr<Job> next() {
    std::unique_lock<std::mutex> lock(mutex_);
    wake_.wait(lock, [this] { return !jobs_.empty(); });
    --idle_;
    std::unique_ptr<Job> job = std::move(jobs_.front());
    jobs_.pop_front();
    return job;
  }

  void becomeIdle() {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++idle_;
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::unique_ptr<Job>> jobs_;  // that no thread has taken yet
  size_t idle_ = 0;                        // threads that take the next ones
};

// Whether a promise that is not settled keeps the process from ending, as promises of files and sockets do.
enum class Keeps { kProcess, kNothing };

// A promise of result(), made on JavaScript's thread after run() has returned on another.
napi_value promiseOf(Environment& e, std::function<void()> run, std::function<napi_value(Environment&)> result = {},
                     Keeps keeps = Keeps::kProcess) {
  auto job = std::make_unique<Job>();
  job->name = e.entry;
  job->run = std::move(run);
  job->result = std::move(result);
  napi_value promise, name;
  check(e, napi_create_string_utf8(e.env, "collective", NAPI_AUTO_LENGTH, &name));
  check(e, napi_create_promise(e.env, &job->deferred, &promise));
  auto back = std::make_unique<std::shared_ptr<WayBack>>(job->back);
  check(e, napi_create_threadsafe_function(e.env, nullptr, nullptr, name, 0, 1, back.get(), settleEnds, nullptr, settle,
                                           &job->back->settle));
  back.release();  // settleEnds() owns it
  const napi_threadsafe_function function = job->back->settle;
  if (keeps == Keeps::kNothing) check(e, napi_unref_threadsafe_function(e.env, function));
  try {
    static auto& waiters = *new Waiters;  // never destroyed: its threads are there until the process has ended
    waiters.start(std::move(job));
  } catch (...) {  // no thread is left
    napi_release_threadsafe_function(function, napi_tsfn_abort);
    throw;
  }
  return promise;
}

// While one exists, c10d logs nothing of what it tries to reach: an attempt that fails is a warning with a stack of
// C++, on every rank, and what counts is the error at the end. TORCH_CPP_LOG_LEVEL brings all of it back.
class QuietLog {
 public:
  QuietLog() { change(1); }
  ~QuietLog() { change(-1); }
  QuietLog(const QuietLog&) = delete;
  QuietLog& operator=(const QuietLog&) = delete;

 private:
  static void change(int by) {
    static std::mutex mutex;
    static int count = 0, usual = 0;
    static const bool isWanted = std::getenv("TORCH_CPP_LOG_LEVEL") != nullptr;
    if (isWanted) return;
    const std::lock_guard<std::mutex> lock(mutex);
    if (count == 0) usual = FLAGS_caffe2_log_level;
    count += by;
    FLAGS_caffe2_log_level = count > 0 ? 3 /* fatal errors alone */ : usual;
  }
};

milliseconds timeoutAt(Environment& e, napi_value v) {
  // Beyond it c10d's sums of times would overflow
  return milliseconds(intWithin(e, v, "timeoutMs", 1, int64_t{1} << 40));
}

// ---- stores --------------------------------------------------------------------------------------------------------
// storeTcp(host, port, serves, timeoutMs, prefix of all keys): Promise<id>. The server does not wait for the others to
// come. What answers there and is no store may be waited for without end: the caller looks at the clock, and may end
// the process.
napi_value storeTcp(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 5) throw UsageError{"storeTcp(host, port, serves, timeoutMs, prefix)"};
  c10d::TCPStoreOptions options;
  const int64_t port = toInt(e, argv[1], "port");
  if (port < 0 || port > 65535) throw UsageError{"the port must be between 0 and 65535, got " + std::to_string(port)};
  options.port = static_cast<std::uint16_t>(port);
  options.isServer = toBool(e, argv[2], "serves");
  options.waitWorkers = false;
  options.timeout = timeoutAt(e, argv[3]);
  auto store = std::make_shared<Store>();
  return promiseOf(
      e,
      [store, options, host = toString(e, argv[0], "host"), prefix = toString(e, argv[4], "prefix")] {
        const QuietLog quiet;
        auto tcp = c10::make_intrusive<c10d::TCPStore>(host, options);
        store->port = tcp->getPort();
        if (prefix.empty()) store->store = std::move(tcp);
        else store->store = c10::make_intrusive<c10d::PrefixStore>(prefix, std::move(tcp));
      },
      [store](Environment& e) { return makeInt(e, storeObject(e, store)); }, Keeps::kNothing);
}
// storeFile(path, processes, timeoutMs): Promise<id>
napi_value storeFile(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 3) throw UsageError{"storeFile(path, processes, timeoutMs)"};
  auto store = std::make_shared<Store>();
  return promiseOf(
      e,
      [store, path = toString(e, argv[0], "path"), processes = intWithin(e, argv[1], "worldSize", 1, 1 << 20),
       timeout = timeoutAt(e, argv[2])] {
        store->store = c10::make_intrusive<c10d::FileStore>(path, static_cast<int>(processes));
        store->store->setTimeout(timeout);
      },
      [store](Environment& e) { return makeInt(e, storeObject(e, store)); });
}
napi_value storePort(Environment& e, napi_value* argv, size_t argc) {
  return makeInt(e, objectAt<Store>(e, argv, argc, "store")->port);
}
// storeSet(store, key, text): Promise<void>
napi_value storeSet(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 3) throw UsageError{"storeSet(store, key, text)"};
  return promiseOf(
      e,
      [store = objectAt<Store>(e, argv, argc, "store"), key = toString(e, argv[1], "key"),
       text = toString(e, argv[2], "text")] {
        const QuietLog quiet;
        store->store->set(key, text);
        // A TCP store does not answer a set; what it answers on the same connection comes after it.
        store->store->check({key});
      },
      {}, Keeps::kNothing);
}
// storeGet(store, key): Promise<text>, empty where nobody has set it
napi_value storeGet(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 2) throw UsageError{"storeGet(store, key)"};
  auto text = std::make_shared<std::string>();
  return promiseOf(
      e,
      [store = objectAt<Store>(e, argv, argc, "store"), key = toString(e, argv[1], "key"), text] {
        const QuietLog quiet;
        if (store->store->check({key})) {
          const std::vector<uint8_t> bytes = store->store->get(key);
          text->assign(bytes.begin(), bytes.end());
        }
      },
      [text](Environment& e) { return makeString(e, *text); }, Keeps::kNothing);
}
napi_value storeFree(Environment& e, napi_value* argv, size_t argc) {
  objectAt<Store>(e, argv, argc, "store");
  e.distributed[toInt(e, argv[0], "store")].reset();
  return makeUndefined(e);
}

// ---- process groups ------------------------------------------------------------------------------------------------
#ifdef MIRO_WITH_NCCL
// Ends the threads of a group that nobody has destroyed when the process exits. They would use libtorch while its own
// objects are destroyed, and end the process by SIGABRT, whatever it was to exit with.
void endAtExit(const std::shared_ptr<Group>& group) {
  static std::mutex mutex;
  static auto& groups = *new std::vector<std::weak_ptr<Group>>;
  std::lock_guard<std::mutex> lock(mutex);
  if (groups.empty()) {
    std::atexit([] {
      for (const auto& one : groups) {
        const auto group = one.lock();
        if (!group || group->keptAlive == nullptr) continue;
        try {
          endNccl(*group->backend);
        } catch (...) {  // the process ends all the same
        }
      }
    });
  }
  groups.push_back(group);
}
#endif

// groupNew(store, backend, rank, size, timeoutMs): Promise<id>. Meets the other processes. The caller keeps the process
// while it waits for them.
napi_value groupNew(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 5) throw UsageError{"groupNew(store, backend, rank, size, timeoutMs)"};
  const auto store = objectAt<Store>(e, argv, argc, "store");
  const std::string backend = toString(e, argv[1], "backend");
  if (backend != "nccl" && backend != "gloo")
    throw UsageError{"backend must be 'gloo' or 'nccl', got '" + backend + "'"};
  const bool nccl = backend == "nccl";
#ifndef MIRO_WITH_NCCL
  if (nccl) throw UsageError{"the nccl backend needs a libtorch with CUDA and nccl.h at set-up; use gloo here"};
#endif
  auto group = std::make_shared<Group>();
  group->size = static_cast<int>(intWithin(e, argv[3], "worldSize", 1, 1 << 20));
  group->rank = static_cast<int>(intWithin(e, argv[2], "rank", 0, group->size - 1));
  group->timeout = timeoutAt(e, argv[4]);
  group->device = nccl ? c10::DeviceType::CUDA : c10::DeviceType::CPU;
#ifdef MIRO_WITH_NCCL
  if (nccl) group->cudaDevice = currentCudaDevice();
#endif
  return promiseOf(
      e,
      [store, group, nccl] {
        const QuietLog quiet;
        Group& g = *group;
        g.store = c10::make_intrusive<c10d::PrefixStore>("miro", store->store);
        g.store->setTimeout(g.timeout);
        using Type = c10d::ProcessGroup::BackendType;
        const Type type = nccl ? Type::NCCL : Type::GLOO;
#ifdef MIRO_WITH_NCCL
        if (nccl) g.backend = ncclBackend(g.store, g.rank, g.size, g.timeout, g.cudaDevice);
#endif
        if (!nccl) {
          g.backend = c10::make_intrusive<c10d::ProcessGroupGloo>(
              g.store, g.rank, g.size, c10d::ProcessGroupGloo::Options::create_default(g.timeout));
        }
        g.group = c10::make_intrusive<c10d::ProcessGroup>(g.store, g.rank, g.size);
        g.group->setDefaultBackend(type);
        g.group->setBackend(g.device, type, g.backend);
        g.keptAlive = new std::shared_ptr<Group>(group);
#ifdef MIRO_WITH_NCCL
        if (nccl) endAtExit(group);
#endif
      },
      [group](Environment& e) { return makeInt(e, storeObject(e, group)); }, Keeps::kNothing);
}

#ifdef MIRO_WITH_NCCL
bool hasFailed(const Group& g) { return g.failed || g.backend->getError() != c10d::ErrorType::SUCCESS; }

// Closes NCCL's connections when what was queued before is done. Where that does not come to pass they are cut, which
// ends the work: closing would wait for the other ranks without end.
void closeNccl(const Group& g, const c10::Event& queued) {
  const auto deadline = std::chrono::steady_clock::now() + g.timeout;
  const auto isDone = [&] { return g.underWay == 0 && queued.query(); };
  try {
    while (!hasFailed(g) && !isDone() && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(milliseconds(1));
    if (!hasFailed(g) && isDone()) return g.backend->shutdown();
  } catch (...) {
    g.backend->abort();
    throw;
  }
  g.backend->abort();
}
#endif

// groupFree(group): Promise<void>. Waits for what is under way, which ends within the timeout.
napi_value groupFree(Environment& e, napi_value* argv, size_t argc) {
  auto group = objectAt<Group>(e, argv, argc, "process group");
  e.distributed[toInt(e, argv[0], "process group")].reset();
  std::shared_ptr<c10::Event> queued;
  if (group->device == c10::DeviceType::CUDA) {
    queued = std::make_shared<c10::Event>(group->device);
    queued->record(c10::impl::VirtualGuardImpl(group->device).getStream({group->device, group->cudaDevice}));
  }
  return promiseOf(e, [group = std::move(group), queued]() mutable {
    delete std::exchange(group->keptAlive, nullptr);
#ifdef MIRO_WITH_NCCL
    if (queued) closeNccl(*group, *queued);
#endif
    group.reset();
  });
}

// Throws where a collective has failed since, which NCCL tells nobody who waits only for the device: a rank was lost,
// and what the collective should have written is not there.
void checkConnections([[maybe_unused]] const Group& g) {
#ifdef MIRO_WITH_NCCL
  if (g.device != c10::DeviceType::CUDA) return;
  const c10d::ErrorType error = g.backend->getError();
  if (error == c10d::ErrorType::SUCCESS) return;
  throw UsageError{error == c10d::ErrorType::TIMEOUT ? "a collective of NCCL's timed out"
                                                     : "NCCL's connections were closed after an error"};
#endif
}

void await(Group& g, const c10::intrusive_ptr<c10d::Work>& work) {
  try {
    work->wait(g.timeout);
#ifdef MIRO_WITH_NCCL
    // NCCL's wait() only orders this thread's stream behind the collective.
    if (g.device == c10::DeviceType::CUDA) waitForCurrentStream(g.cudaDevice);
#endif
    checkConnections(g);
  } catch (...) {
    g.failed = true;
    throw;
  }
}

at::Tensor collectiveTensor(Environment& e, const Group& g, napi_value* argv, size_t argc) {
  checkConnections(g);
  const at::Tensor t = e.tensor(handleAt(e, argv, argc, 1)).detach();
  if (t.layout() != at::kStrided || t.device().type() != g.device) {
    throw UsageError{"a collective of " + g.backend->getBackendName() + " needs a dense tensor on " +
                     c10::DeviceTypeName(g.device, true) + ", got " + describe(t)};
  }
  return t;
}

// Collectives want values in contiguous memory: others go through a copy.
struct Contiguous {
  at::Tensor original, dense;
  explicit Contiguous(at::Tensor t) : original(std::move(t)), dense(materialised(original).contiguous()) {}
  void copyBack() const {
    if (!dense.is_same(original)) original.copy_(dense);
  }
};

// An all-reduce that the calling thread has queued.
struct AllReduce {
  Contiguous tensor;
  bool average;
  c10::intrusive_ptr<c10d::Work> work;

  void finish(const Group& g) const {
    if (average) tensor.dense.div_(g.size);  // Gloo cannot average
    tensor.copyBack();
  }
};

AllReduce queuedAllReduce(Environment& e, const Group& g, napi_value* argv, size_t argc) {
  const Contiguous t(collectiveTensor(e, g, argv, argc));
  const std::string name = toString(e, argv[2], "operation");
  const bool average = name == "avg";
  if (average && !at::isFloatingType(t.original.scalar_type())) {
    throw UsageError{"allReduce: an average needs a floating tensor, got " + describe(t.original)};
  }
  c10d::AllreduceOptions options;
  if (name != "sum" && name != "avg" && name != "max" && name != "min") {
    throw UsageError{"allReduce: the operation must be 'sum', 'avg', 'max' or 'min', got '" + name + "'"};
  }
  options.reduceOp = name == "max" ? c10d::ReduceOp::MAX : name == "min" ? c10d::ReduceOp::MIN : c10d::ReduceOp::SUM;
  options.timeout = g.timeout;
  std::vector<at::Tensor> tensors{t.dense};
  return {t, average, g.backend->allreduce(tensors, options)};
}

// groupAllReduce(group, tensor, "sum" | "avg" | "max" | "min"): Promise<void>, in place
napi_value groupAllReduce(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 3) throw UsageError{"groupAllReduce(group, tensor, operation)"};
  const auto group = objectAt<Group>(e, argv, argc, "process group");
  const AllReduce all = queuedAllReduce(e, *group, argv, argc);
  return promiseOf(e, [group = Use(group), all] {
    await(*group, all.work);
    all.finish(*group);
  });
}

// groupQueueAllReduce(group, tensor, operation): in place. What the current stream is given from now on comes after it;
// only on the CPU the host waits. groupCheck tells whether it failed.
napi_value groupQueueAllReduce(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 3) throw UsageError{"groupQueueAllReduce(group, tensor, operation)"};
  const auto group = objectAt<Group>(e, argv, argc, "process group");
  const AllReduce all = queuedAllReduce(e, *group, argv, argc);
  try {
    all.work->wait();  // with a timeout of its own it would wait for the device as well
  } catch (...) {
    group->failed = true;
    throw;
  }
  all.finish(*group);
  return makeUndefined(e);
}

// groupCheck(group): throws where something that was queued has failed since
napi_value groupCheck(Environment& e, napi_value* argv, size_t argc) {
  checkConnections(*objectAt<Group>(e, argv, argc, "process group"));
  return makeUndefined(e);
}

// groupBroadcast(group, tensor, root): Promise<void>, in place
napi_value groupBroadcast(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 3) throw UsageError{"groupBroadcast(group, tensor, root)"};
  const auto group = objectAt<Group>(e, argv, argc, "process group");
  const Contiguous t(collectiveTensor(e, *group, argv, argc));
  c10d::BroadcastOptions options;
  options.rootRank = intWithin(e, argv[2], "root", 0, group->size - 1);
  options.timeout = group->timeout;
  std::vector<at::Tensor> tensors{t.dense};
  const auto work = group->backend->broadcast(tensors, options);
  return promiseOf(e, [group = Use(group), work, t] {
    await(*group, work);
    t.copyBack();
  });
}

// groupAllGather(group, tensor): Promise<handles>, one a rank
napi_value groupAllGather(Environment& e, napi_value* argv, size_t argc) {
  const auto group = objectAt<Group>(e, argv, argc, "process group");
  std::vector<at::Tensor> inputs{Contiguous(collectiveTensor(e, *group, argv, argc)).dense};
  auto outputs = std::make_shared<std::vector<std::vector<at::Tensor>>>(1);
  for (int i = 0; i < group->size; ++i) outputs->front().push_back(at::empty_like(inputs[0]));
  c10d::AllgatherOptions options;
  options.timeout = group->timeout;
  const auto work = group->backend->allgather(*outputs, inputs, options);
  return promiseOf(
      e, [group = Use(group), work] { await(*group, work); },
      [outputs](Environment& e) {
        std::vector<Handle> handles;
        for (const at::Tensor& t : outputs->front()) handles.push_back(e.store(t));
        return makeHandles(e, handles);
      });
}

// groupBarrier(group): Promise<void>
napi_value groupBarrier(Environment& e, napi_value* argv, size_t argc) {
  const auto group = objectAt<Group>(e, argv, argc, "process group");
  c10d::BarrierOptions options;
  options.timeout = group->timeout;
  checkConnections(*group);
  if (group->device == c10::DeviceType::CUDA) options.device_ids = {group->cudaDevice};
  const auto work = group->backend->barrier(options);
  return promiseOf(e, [group = Use(group), work] { await(*group, work); });
}

// ---- gradients -----------------------------------------------------------------------------------------------------
struct ReducerArguments {
  std::vector<at::Tensor> parameters;
  std::vector<std::vector<size_t>> buckets;
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  std::unordered_map<size_t, std::string> names;
  int64_t bucketBytes, firstBucketBytes;
  bool findUnused;
};

// The constructor has grown from version to version: its last arguments are given where they exist.
template <typename R>
std::shared_ptr<R> makeReducer(const ReducerArguments& a) {
  const std::vector<bool> sparse(a.parameters.size(), false);
  const std::vector<int64_t> caps;  // none: firstBucketBytes, then bucketBytes
  using Vb = std::vector<bool>;
  using Names = std::unordered_map<size_t, std::string>;
  using Base = std::vector<at::Tensor>;
  using Pg = c10::intrusive_ptr<c10d::ProcessGroup>;
  using Buckets = std::vector<std::vector<size_t>>;
  if constexpr (std::is_constructible_v<R, Base, Buckets, Pg, Vb, int64_t, bool, bool, Names, int64_t, bool, bool,
                                        std::vector<int64_t>, bool>) {
    return std::make_shared<R>(a.parameters, a.buckets, a.group, sparse, a.bucketBytes, a.findUnused, false, a.names,
                               a.firstBucketBytes, false, false, caps, false);
  } else if constexpr (std::is_constructible_v<R, Base, Buckets, Pg, Vb, int64_t, bool, bool, Names, int64_t, bool,
                                               bool, std::vector<int64_t>>) {
    return std::make_shared<R>(a.parameters, a.buckets, a.group, sparse, a.bucketBytes, a.findUnused, false, a.names,
                               a.firstBucketBytes, false, false, caps);
  } else {
    return std::make_shared<R>(a.parameters, a.buckets, a.group, sparse, a.bucketBytes, a.findUnused, false, a.names,
                               a.firstBucketBytes, false, false);
  }
}

// reducerNew(group, parameters, names, bucketBytes, firstBucketBytes, findUnused): Promise<id>.
// Compares the parameters of all processes and gives every one rank 0's values.
napi_value reducerNew(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 6) throw UsageError{"reducerNew(group, parameters, names, bucketBytes, firstBucketBytes, findUnused)"};
  auto made = std::make_shared<GradientReducer>();
  made->group = objectAt<Group>(e, argv, argc, "process group");
  ReducerArguments a;
  for (const Handle h : toHandles(e, argv[1], "parameters")) a.parameters.push_back(e.tensor(h));
  for (size_t i = 0; i < a.parameters.size(); ++i) {
    napi_value name;
    check(e, napi_get_element(e.env, argv[2], static_cast<uint32_t>(i), &name));
    a.names[i] = toString(e, name, "names");
  }
  a.bucketBytes = intWithin(e, argv[3], "bucketBytes", 1, int64_t{1} << 40);
  a.firstBucketBytes = intWithin(e, argv[4], "firstBucketBytes", 1, int64_t{1} << 40);
  a.findUnused = toBool(e, argv[5], "findUnused");
  return promiseOf(
      e,
      [made, a = std::move(a)]() mutable {
        a.group = made->group->group;
        c10d::verify_params_across_processes(a.group, a.parameters, std::nullopt);
        std::vector<at::Tensor> values;
        for (const at::Tensor& p : a.parameters) values.push_back(p.detach());
        c10d::broadcast_coalesced(a.group, values, 250 * 1024 * 1024, 0);
        const std::vector<size_t> limits{static_cast<size_t>(a.firstBucketBytes), static_cast<size_t>(a.bucketBytes)};
        a.buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(a.parameters, limits));
        std::reverse(a.buckets.begin(), a.buckets.end());  // backward comes to the last parameters first
        made->reducer = makeReducer<c10d::Reducer>(a);
        made->logger = std::make_shared<c10d::Logger>(made->reducer);
        made->reducer->set_logger(made->logger);
        made->logger->set_construction_data_and_log("Module", {}, -1, false, false, false);
      },
      [made](Environment& e) { return makeInt(e, storeObject(e, made)); });
}
napi_value reducerFree(Environment& e, napi_value* argv, size_t argc) {
  objectAt<GradientReducer>(e, argv, argc, "reducer");
  e.distributed[toInt(e, argv[0], "reducer")].reset();
  return makeUndefined(e);
}
// reducerForward(reducer): after the first step, orders the buckets as the gradients came.
napi_value reducerForward(Environment& e, napi_value* argv, size_t argc) {
  const auto r = objectAt<GradientReducer>(e, argv, argc, "reducer");
  checkConnections(*r->group);
  r->logger->set_runtime_stats_and_log();
  r->reducer->prepare_for_forward();
  return makeBool(e, r->reducer->rebuild_buckets());
}
// reducerBackward(reducer, outputs): the next backward reduces. Outputs are looked at only to find unused parameters.
napi_value reducerBackward(Environment& e, napi_value* argv, size_t argc) {
  const auto r = objectAt<GradientReducer>(e, argv, argc, "reducer");
  if (argc < 2) throw UsageError{"reducerBackward(reducer, outputs)"};
  std::vector<at::Tensor> outputs;
  for (const Handle h : toHandles(e, argv[1], "outputs")) outputs.push_back(e.tensor(h));
  r->reducer->prepare_for_backward(outputs);
  return makeUndefined(e);
}
// reducerFinalize(reducer): throws when a parameter has got no gradient, and when a rank was lost.
napi_value reducerFinalize(Environment& e, napi_value* argv, size_t argc) {
  const auto r = objectAt<GradientReducer>(e, argv, argc, "reducer");
  r->reducer->check_finalized();
  checkConnections(*r->group);
  return makeUndefined(e);
}
// reducerStatistics(reducer): [backward, communication, overlap in ns, bytes of each bucket...]
napi_value reducerStatistics(Environment& e, napi_value* argv, size_t argc) {
  const auto r = objectAt<GradientReducer>(e, argv, argc, "reducer");
  const auto data = r->logger->get_ddp_logging_data();
  std::vector<double> values;
  for (const char* key :
       {"avg_backward_compute_time", "avg_backward_comm_time", "avg_backward_compute_comm_overlap_time"}) {
    const auto found = data.ints_map.find(key);
    values.push_back(found == data.ints_map.end() ? 0.0 : static_cast<double>(found->second));
  }
  for (const int64_t bytes : r->logger->get_bucket_sizes()) values.push_back(static_cast<double>(bytes));
  return makeArray(e, values, makeNumber);
}

}  // namespace

const std::vector<Binding> kDistributedBindings = {
    {"storeTcp", storeTcp}, {"storeFile", storeFile}, {"storePort", storePort}, {"storeFree", storeFree},
    {"storeSet", storeSet}, {"storeGet", storeGet},
    {"groupNew", groupNew}, {"groupFree", groupFree}, {"groupAllReduce", groupAllReduce},
    {"groupQueueAllReduce", groupQueueAllReduce}, {"groupCheck", groupCheck},
    {"groupBroadcast", groupBroadcast}, {"groupAllGather", groupAllGather}, {"groupBarrier", groupBarrier},
    {"reducerNew", reducerNew}, {"reducerFree", reducerFree}, {"reducerForward", reducerForward},
    {"reducerBackward", reducerBackward}, {"reducerFinalize", reducerFinalize},
    {"reducerStatistics", reducerStatistics}};

}  // namespace miro
