// Included before every source of the released addon: asks for the functions that glibc 2.34 moved into libc.so by the
// version that they had before, so that the addon also loads where glibc is older. Both exist in every newer glibc.
#pragma once
#if defined(__x86_64__) && defined(__gnu_linux__)
__asm__(".symver dladdr, dladdr@GLIBC_2.2.5");
__asm__(".symver dlopen, dlopen@GLIBC_2.2.5");
__asm__(".symver dlsym, dlsym@GLIBC_2.2.5");
__asm__(".symver pthread_once, pthread_once@GLIBC_2.2.5");
#endif
