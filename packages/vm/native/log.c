#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "guardian.h"

int log_open(struct log *log, int dir_fd) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) < 0) return -1;
  log->read_fd = fds[0];
  log->write_fd = fds[1];
  if (fcntl(log->read_fd, F_SETFL, O_NONBLOCK) < 0) return -1;
  log->file_fd = openat(dir_fd, log->name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  return log->file_fd < 0 ? -1 : 0;
}

static void remember(struct log *log, const char *data, size_t len) {
  if (len >= TAIL_BYTES_MAX) {
    memcpy(log->tail, data + len - TAIL_BYTES_MAX, TAIL_BYTES_MAX);
    log->tail_bytes = TAIL_BYTES_MAX;
    return;
  }
  size_t kept = log->tail_bytes;
  if (kept + len > TAIL_BYTES_MAX) {
    size_t drop = kept + len - TAIL_BYTES_MAX;
    memmove(log->tail, log->tail + drop, kept - drop);
    kept -= drop;
  }
  memcpy(log->tail + kept, data, len);
  log->tail_bytes = kept + len;
}

// Reads what is there, at most one pipe's worth, so that a flood does not keep us from the rest.
void log_drain(struct log *log) {
  char buffer[16384];
  for (int i = 0; i < 4 && log->read_fd >= 0; i++) {
    ssize_t n = read(log->read_fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
      close(log->read_fd);
      log->read_fd = -1;
      return;
    }
    remember(log, buffer, (size_t)n);
    if (log->file_bytes + (size_t)n > LOG_BYTES_MAX) {
      static const char notice[] = "[earlier output was dropped]\n";
      if (ftruncate(log->file_fd, 0) < 0 || lseek(log->file_fd, 0, SEEK_SET) < 0) continue;
      log->file_bytes = 0;
      if (write(log->file_fd, notice, sizeof notice - 1) > 0) log->file_bytes = sizeof notice - 1;
    }
    // A full disk must not stop the machine: what cannot be written is in the tail still.
    ssize_t written = write(log->file_fd, buffer, (size_t)n);
    if (written > 0) log->file_bytes += (size_t)written;
  }
}
