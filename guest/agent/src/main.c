/*
 * arcbox agent: what the host talks to inside a virtual machine.
 *
 *   agent                 as PID 1: sets the system up, serves the virtio-serial port
 *   agent --init          the same under another pid (for tests of the setup)
 *   agent --socket PATH   on a host, for tests: serves a Unix socket, sets nothing up
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "child.h"
#include "init.h"
#include "limits.h"
#include "link.h"
#include "loop.h"
#include "object.h"

#define PORT_NAME "org.arcbox.agent"
#define DESCRIPTORS_MAX 65536u

static void asked_to_stop(int number) {
  (void)number;
  loop_stop();
}

static void raise_descriptor_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit)) return;
  if (agent_is_init) limit.rlim_max = MAX(limit.rlim_max, DESCRIPTORS_MAX);
  limit.rlim_cur = MIN(limit.rlim_max, DESCRIPTORS_MAX);
  setrlimit(RLIMIT_NOFILE, &limit);
}

static int serve_socket(const char *path) {
  if (prctl(PR_SET_CHILD_SUBREAPER, 1)) fatal("become a subreaper: %s", strerror(errno));
  children_init(asked_to_stop);
  link_listen(path);
  loop_run();
  link_close();
  objects_release_all();
  children_close();
  loop_close();
  unlink(path);
  return 0;
}

static int serve_port(void) {
  init_system();
  children_init(NULL);
  link_open_port(init_find_port(PORT_NAME));
  loop_run();
  return 0;
}

int main(int argc, char **argv) {
  agent_is_init = getpid() == 1 || (argc == 2 && !strcmp(argv[1], "--init"));
  /* What we were started with is not for the processes we start. */
  close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
  if (agent_is_init) {
    loop_init();
    raise_descriptor_limit();
    return serve_port();
  }
  if (argc != 3 || strcmp(argv[1], "--socket")) {
    fprintf(stderr, "usage: agent --socket PATH\n");
    return 2;
  }
  loop_init();
  raise_descriptor_limit();
  return serve_socket(argv[2]);
}
