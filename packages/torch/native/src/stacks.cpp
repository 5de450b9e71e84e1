// Where all threads are when the process dies by a signal, on stderr: the one that the signal found, then the others.
//
// libtorch has such a handler, too (c10::FatalSignalHandler). It gives up at the first thread that takes no signals, of
// which Node has one from the start.
#include "stacks.hpp"

#if defined(__linux__) && __has_include(<execinfo.h>)
#include <dirent.h>
#include <execinfo.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>

namespace miro {
namespace {

constexpr int kFatal[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV};
constexpr int kMostFrames = 64;
constexpr int kWaitMs = 200;  // for a thread, which may take no signals

// By which a thread is asked for its stack.
int askingSignal() { return SIGRTMIN + 7; }

std::atomic<int> dying{0};  // by which signal
std::atomic<pid_t> told{0};

pid_t thisThread() { return static_cast<pid_t>(::syscall(SYS_gettid)); }

void tell() {
  void* frames[kMostFrames];
  const int count = ::backtrace(frames, kMostFrames);
  ::dprintf(STDERR_FILENO, "signal %d, thread %d\n", dying.load(), thisThread());
  ::backtrace_symbols_fd(frames, count, STDERR_FILENO);
}

void onAsked(int) {
  if (dying == 0) return;
  tell();
  told = thisThread();
}

void ask(pid_t thread) {
  ::syscall(SYS_tgkill, ::getpid(), thread, askingSignal());
  const timespec millisecond{0, 1'000'000};
  for (int i = 0; i < kWaitMs && told != thread; ++i) ::nanosleep(&millisecond, nullptr);
}

void onFatal(int signal) {
  int none = 0;
  if (!dying.compare_exchange_strong(none, signal)) {
    while (true) ::pause();  // the process ends by the first one
  }
  tell();
  if (DIR* const threads = ::opendir("/proc/self/task")) {
    while (const dirent* const entry = ::readdir(threads)) {
      const pid_t thread = std::atoi(entry->d_name);
      if (thread > 0 && thread != thisThread()) ask(thread);
    }
  }
  std::signal(signal, SIG_DFL);
  ::raise(signal);
}

}  // namespace

void tellStacksOfCrashes() {
  void* frame = nullptr;
  ::backtrace(&frame, 1);  // loads what it needs
  struct sigaction action {};
  action.sa_flags = SA_ONSTACK;
  action.sa_handler = onAsked;
  ::sigaction(askingSignal(), &action, nullptr);
  // Else a signal that is raised in the handler would wait for it to end.
  action.sa_flags = SA_ONSTACK | SA_NODEFER;
  action.sa_handler = onFatal;
  for (const int signal : kFatal) ::sigaction(signal, &action, nullptr);
}

}  // namespace miro
#else
namespace miro {
void tellStacksOfCrashes() {}
}  // namespace miro
#endif
