// Lets a library that is linked on a new system run on an older one.
//
// glibc 2.34 gave these functions a new version when it moved them from libpthread into libc; the
// old version is still there, and it is the one that older systems have. The linker's --wrap sends
// every use here, those inside the C++ library too (custom_ops/build.py).

#include <pthread.h>

#ifdef __aarch64__
#define KLA_FIRST_VERSION "GLIBC_2.17"
#else
#define KLA_FIRST_VERSION "GLIBC_2.2.5"
#endif

#define KLA_OLD(function) __asm__(".symver old_" #function "," #function "@" KLA_FIRST_VERSION)

KLA_OLD(pthread_create);
KLA_OLD(pthread_detach);
KLA_OLD(pthread_once);

extern "C" {

int old_pthread_create(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
int old_pthread_detach(pthread_t);
int old_pthread_once(pthread_once_t*, void (*)());

int __wrap_pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                          void* (*function)(void*), void* argument) {
  return old_pthread_create(thread, attributes, function, argument);
}
int __wrap_pthread_detach(pthread_t thread) { return old_pthread_detach(thread); }
int __wrap_pthread_once(pthread_once_t* once, void (*function)()) {
  return old_pthread_once(once, function);
}

// Of glibc 2.32, read by the C++ library: whether it may leave out atomic operations.
char __libc_single_threaded = 0;

}  // extern "C"
