#define _GNU_SOURCE
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

bool agent_is_init;

void list_init(struct list *node) { node->prev = node->next = node; }

void list_add(struct list *head, struct list *node) {
  node->prev = head->prev;
  node->next = head;
  head->prev->next = node;
  head->prev = node;
}

void list_remove(struct list *node) {
  node->prev->next = node->next;
  node->next->prev = node->prev;
  list_init(node);
}

bool list_empty(const struct list *head) { return head->next == head; }

void *xrealloc(void *pointer, size_t size) {
  void *result = realloc(pointer, size ? size : 1);
  if (!result) fatal("out of memory (%zu bytes)", size);
  return result;
}

void *xmalloc(size_t size) { return xrealloc(NULL, size); }

void *xcalloc(size_t count, size_t size) {
  void *result = calloc(count, size);
  if (!result) fatal("out of memory (%zu x %zu bytes)", count, size);
  return result;
}

char *xstrdup(const char *string) {
  size_t size = strlen(string) + 1;
  return memcpy(xmalloc(size), string, size);
}

void buf_reserve(struct buf *buf, size_t extra) {
  size_t needed = buf->size + extra;
  if (needed <= buf->capacity) return;
  size_t capacity = buf->capacity ? buf->capacity : 256;
  while (capacity < needed) capacity *= 2;
  buf->data = xrealloc(buf->data, capacity);
  buf->capacity = capacity;
}

void buf_add(struct buf *buf, const void *data, size_t size) {
  if (!size) return;
  buf_reserve(buf, size);
  memcpy(buf->data + buf->size, data, size);
  buf->size += size;
}

void buf_add_varint(struct buf *buf, uint64_t value) {
  uint8_t bytes[10];
  size_t size = 0;
  do {
    bytes[size++] = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
    value >>= 7;
  } while (value);
  buf_add(buf, bytes, size);
}

void buf_drop_front(struct buf *buf, size_t size) {
  buf->size -= size;
  if (buf->size) memmove(buf->data, buf->data + size, buf->size);
}

void buf_free(struct buf *buf) {
  free(buf->data);
  *buf = (struct buf){0};
}

static void print_line(const char *prefix, const char *format, va_list arguments) {
  char line[512];
  int size = snprintf(line, sizeof line - 1, "%s", prefix);
  int more = vsnprintf(line + size, sizeof line - 1 - (size_t)size, format, arguments);
  size = more < 0 ? size : MIN(size + more, (int)sizeof line - 2);
  for (int i = 0; i < size; i++)
    if ((unsigned char)line[i] < ' ') line[i] = '?'; /* one line, whatever a peer sent */
  line[size++] = '\n';
  (void)!write(STDERR_FILENO, line, (size_t)size);
}

void warn(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  print_line("agent: ", format, arguments);
  va_end(arguments);
}

void power_off(void) {
#ifdef __x86_64__
  /* Without ACPI nothing can switch this machine off; a reset is what ends it (QEMU, -no-reboot). */
  if (access("/sys/firmware/acpi", F_OK)) reboot(RB_AUTOBOOT);
#endif
  reboot(RB_POWER_OFF);
}

void fatal(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  print_line("agent: fatal: ", format, arguments);
  va_end(arguments);
  if (agent_is_init && getpid() == 1) {
    sync();
    power_off();
  }
  _exit(1);
}

uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int pipe_cloexec(int fds[2]) { return pipe2(fds, O_CLOEXEC) ? -errno : 0; }

int write_all(int fd, const void *data, size_t size) {
  const char *at = data;
  while (size) {
    ssize_t written = write(fd, at, size);
    if (written < 0) {
      if (errno == EINTR) continue;
      return -errno;
    }
    at += written;
    size -= (size_t)written;
  }
  return 0;
}

int write_file(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  int error = write_all(fd, text, strlen(text));
  close(fd);
  return error;
}

ssize_t read_file(const char *path, char *text, size_t size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  size_t length = 0;
  ssize_t count = 0;
  while (length < size - 1 && (count = read(fd, text + length, size - 1 - length)) != 0) {
    if (count > 0) length += (size_t)count;
    else if (errno != EINTR) break;
  }
  int error = errno;
  close(fd);
  text[length] = 0;
  return count < 0 ? -error : (ssize_t)length;
}

void close_fd(int *fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

bool path_has_dotdot(const char *path) {
  while (*path) {
    size_t size = strcspn(path, "/");
    if (size == 2 && path[0] == '.' && path[1] == '.') return true;
    path += size + (path[size] == '/');
  }
  return false;
}

/* The length of the well-formed UTF-8 sequence at `text` (Unicode 15, table 3-7), or 0. */
static size_t utf8_sequence(const unsigned char *text) {
  unsigned char first = text[0], low = 0x80, high = 0xbf;
  size_t size;
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) size = 2;
  else if (first >= 0xe0 && first <= 0xef) size = 3;
  else if (first >= 0xf0 && first <= 0xf4) size = 4;
  else return 0;
  if (first == 0xe0) low = 0xa0;
  if (first == 0xed) high = 0x9f;
  if (first == 0xf0) low = 0x90;
  if (first == 0xf4) high = 0x8f;
  for (size_t i = 1; i < size; i++) {
    if (text[i] < low || text[i] > high) return 0;
    low = 0x80;
    high = 0xbf;
  }
  return size;
}

void utf8_sanitize(char *text) {
  unsigned char *at = (unsigned char *)text;
  while (*at) {
    size_t size = utf8_sequence(at);
    if (!size) *at = '?';
    at += size ? size : 1;
  }
}
