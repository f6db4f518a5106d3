/* Lists, byte buffers, logging: what every other file leans on. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define container_of(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))
#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* A ring of nodes; an unlinked node points to itself. */
struct list {
  struct list *prev, *next;
};

#define LIST_INIT(name) {&(name), &(name)}
void list_init(struct list *node);
void list_add(struct list *head, struct list *node); /* at the end */
void list_remove(struct list *node);                 /* and initialises the node again */
bool list_empty(const struct list *head);

/* Growing bytes. Allocation failure is fatal: everything that grows is bounded by limits.h. */
struct buf {
  uint8_t *data;
  size_t size, capacity;
};

void buf_reserve(struct buf *buf, size_t extra);
void buf_add(struct buf *buf, const void *data, size_t size);
void buf_add_varint(struct buf *buf, uint64_t value);
void buf_drop_front(struct buf *buf, size_t size);
void buf_free(struct buf *buf);

void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *pointer, size_t size);
char *xstrdup(const char *string);

/* One line on stderr, which is the console when the agent is init. */
void warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, and the end: powers the machine off when the agent is init. */
_Noreturn void fatal(const char *format, ...) __attribute__((format(printf, 1, 2)));
extern bool agent_is_init;
void power_off(void); /* as init only; returns when it cannot */

uint64_t now_ns(void); /* CLOCK_MONOTONIC */

/* -errno or 0. Close-on-exec is always set. */
int pipe_cloexec(int fds[2]);
int write_all(int fd, const void *data, size_t size);
int write_file(const char *path, const char *text);
/* Reads at most `size - 1` bytes and ends them with a NUL; the length, or -errno. */
ssize_t read_file(const char *path, char *text, size_t size);
void close_fd(int *fd); /* and sets it to -1 */

/* Whether a component of the path is "..". */
bool path_has_dotdot(const char *path);

/* Replaces what is not UTF-8 in place with '?': a strict decoder refuses a whole message for it. */
void utf8_sanitize(char *text);
