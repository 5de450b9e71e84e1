// Linked into the released addon: what glibc has as symbols only since 2.32, in the addon's own copy.
#include <sys/syscall.h>
#include <unistd.h>

// glibc 2.33 made fstat a symbol; before, it was a macro of its headers. The system call fills the same structure.
__attribute__((visibility("hidden"))) int fstat(int descriptor, void* status) {
  return (int)syscall(SYS_fstat, descriptor, status);
}

// glibc 2.32 tells libstdc++ whether the process has one thread. Node has several: 0 is always right.
__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;
