// Included before every source of the released addon: asks for the functions that glibc 2.34 moved into libc.so, and
// for pow, whose errors glibc 2.29 reports otherwise, by the version that they had before; likewise for waiting on a
// condition variable, which the C++ library of GCC 12 promises not to throw. So the addon also loads where these
// libraries are older. Both versions exist in every newer one.
#pragma once
#if defined(__x86_64__) && defined(__gnu_linux__)
__asm__(".symver _ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE, "
        "_ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE@GLIBCXX_3.4.11");
__asm__(".symver dladdr, dladdr@GLIBC_2.2.5");
__asm__(".symver dlerror, dlerror@GLIBC_2.2.5");
__asm__(".symver dlopen, dlopen@GLIBC_2.2.5");
__asm__(".symver dlsym, dlsym@GLIBC_2.2.5");
__asm__(".symver pow, pow@GLIBC_2.2.5");
__asm__(".symver pthread_once, pthread_once@GLIBC_2.2.5");
#endif
