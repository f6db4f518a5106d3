/*
 * The console socket of the OCI runtime: the launcher connects and sends the master end of the
 * container's terminal as ancillary data.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "process.h"

struct console {
  struct process *process;
  struct source listener, connection;
  bool input, done;
  struct sockaddr_un address;
};

/* The descriptor of the first message, or -1. */
static int receive_descriptor(int fd) {
  char byte[64];
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int) * 4)];
  } control;
  struct iovec data = {byte, sizeof byte};
  struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  int master = -1;
  if (recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) < 0) return -1;
  for (struct cmsghdr *at = CMSG_FIRSTHDR(&message); at; at = CMSG_NXTHDR(&message, at)) {
    if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (at->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int received;
      memcpy(&received, CMSG_DATA(at) + i * sizeof(int), sizeof received);
      if (master < 0) master = received;
      else close(received);
    }
  }
  return master;
}

static void connection_ready(struct source *source, uint32_t events) {
  struct console *console = container_of(source, struct console, connection);
  (void)events;
  if (console->done) return;
  int master = receive_descriptor(source->fd);
  if (master < 0) return;
  console->done = true;
  int error = process_open_terminal(console->process, master, console->input);
  if (error) warn("terminal of %s: %s", console->process->object.id, strerror(-error));
}

static void listener_ready(struct source *source, uint32_t events) {
  struct console *console = container_of(source, struct console, listener);
  (void)events;
  if (console->connection.fd >= 0) return;
  int fd = accept4(source->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd >= 0 && source_add(&console->connection, fd, EPOLLIN, connection_ready)) close(fd);
}

int console_open(struct process *process, const char *path, bool input) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) return -ENAMETOOLONG;
  strcpy(address.sun_path, path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  if (bind(fd, (struct sockaddr *)&address, sizeof address)) {
    int error = -errno;
    close(fd);
    return error;
  }
  struct console *console = xcalloc(1, sizeof *console);
  console->process = process;
  console->input = input;
  console->address = address;
  console->connection.fd = console->listener.fd = -1;
  process->console = console;
  int error = listen(fd, 1) ? -errno : source_add(&console->listener, fd, EPOLLIN, listener_ready);
  if (!error) return 0;
  close(fd);
  console_close(process);
  return error;
}

bool console_settle(struct process *process) {
  struct console *console = process->console;
  if (!console->done && console->connection.fd < 0) listener_ready(&console->listener, EPOLLIN);
  if (!console->done && console->connection.fd >= 0) connection_ready(&console->connection, EPOLLIN);
  bool done = console->done;
  console_close(process);
  return done;
}

void console_close(struct process *process) {
  struct console *console = process->console;
  if (!console) return;
  int fds[2] = {console->listener.fd, console->connection.fd};
  source_remove(&console->listener);
  source_remove(&console->connection);
  close_fd(&fds[0]);
  close_fd(&fds[1]);
  unlink(console->address.sun_path);
  free(console);
  process->console = NULL;
}
