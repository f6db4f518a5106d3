/* The start of a process object: its descriptors, its channels and the fork. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "limits.h"
#include "ops.h"
#include "process.h"

int process_open_terminal(struct process *process, int master, bool input) {
  struct channel **channels = process->object.channels;
  int output = fcntl(master, F_DUPFD_CLOEXEC, 3);
  int input_fd = input ? fcntl(master, F_DUPFD_CLOEXEC, 3) : -1;
  fcntl(master, F_SETFL, O_RDWR | O_NONBLOCK);
  process->terminal = master;
  if (process->has_size) {
    struct winsize size = {.ws_row = (uint16_t)process->size.rows, .ws_col = (uint16_t)process->size.columns};
    ioctl(master, TIOCSWINSZ, &size);
  }
  int error = output < 0 ? -EMFILE : channel_open(channels[1], output);
  int other = !input ? 0 : input_fd < 0 ? -EMFILE : channel_open(channels[0], input_fd);
  return error ? error : other;
}

/* Opens what the child gets as 0 to 2 and gives our ends to the channels. -errno or 0. */
static int open_stdio(const Spawn *spawn, bool exec_in, int ours[3], int theirs[3]) {
  bool console = msg_is_set(spawn->console_socket);
  int pipes[2];
  if (exec_in && spawn->tty) return 0; /* the container's: opened in there */
  if (spawn->tty && !console) {
    int unlock = 0;
    ours[1] = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (ours[1] < 0 || ioctl(ours[1], TIOCSPTLCK, &unlock)) return -errno;
    theirs[0] = ioctl(ours[1], TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    return theirs[0] < 0 ? -errno : 0;
  }
  if (spawn->stdin && !console) {
    int error = pipe_cloexec(pipes);
    if (error) return error;
    theirs[0] = pipes[0];
    ours[0] = pipes[1];
  } else {
    theirs[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (theirs[0] < 0) return -errno;
  }
  for (int i = console ? 2 : 1; i < 3; i++) { /* with a console both go to channel 2 */
    int error = pipe_cloexec(pipes);
    if (error) return error;
    ours[i] = pipes[0];
    theirs[i] = pipes[1];
    fcntl(pipes[0], F_SETPIPE_SZ, PIPE_SIZE); /* or as big as the user may have */
  }
  for (int i = 0; i < 3; i++)
    if (ours[i] >= 0) fcntl(ours[i], F_SETFL, O_NONBLOCK);
  return 0;
}

/* Every descriptor in `ours` is taken. */
static int make_channels(struct process *process, const Spawn *spawn, int ours[3]) {
  struct object *object = &process->object;
  int fds[3] = {ours[0], ours[1], ours[2]};
  ours[0] = ours[1] = ours[2] = -1;
  bool failed = false;
  if (spawn->tty) {
    failed |= !channel_output(object, 1, -1);
    if (spawn->stdin) failed |= !channel_input(object, -1, END_TERMINAL);
    if (fds[1] >= 0) failed |= process_open_terminal(process, fds[1], spawn->stdin) != 0;
  } else {
    failed |= !channel_output(object, 1, fds[1]);
    if (fds[0] >= 0) failed |= !channel_input(object, fds[0], END_CLOSE);
  }
  if (fds[2] >= 0) failed |= !channel_output(object, 2, fds[2]);
  return failed ? -EMFILE : 0;
}

static int fork_launch(struct process *process, struct launch *launch, int theirs[3]) {
  int report[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, report)) return -errno;
  launch->report_fd = report[1];
  for (int i = 0; i < 3; i++) launch->stdio[i] = theirs[i] >= 0 ? theirs[i] : theirs[i == 1 && !launch->tty ? 2 : 0];
  pid_t pid = fork();
  if (pid == 0) launch_child(launch);
  int error = pid < 0 ? -errno : 0;
  close(report[1]);
  if (error) {
    close(report[0]);
    return error;
  }
  /* ExecIn's child only enters the namespaces: the pid that counts comes with the report. */
  error = process_watch_launch(process, report[0], launch->exec_in ? 0 : pid);
  if (error) kill(pid, SIGKILL); /* nobody would know it */
  return error;
}

static int check_spawn(const Spawn *spawn, const char **why) {
  size_t bytes = 0;
  for (size_t i = 0; i < spawn->argv.count; i++) bytes += strlen(spawn->argv.items[i]) + 1 + sizeof(char *);
  for (size_t i = 0; i < spawn->env.count; i++) bytes += strlen(spawn->env.items[i]) + 1 + sizeof(char *);
  *why = "arguments and environment exceed 1 MiB";
  if (bytes > ARGV_ENV_MAX) return E2BIG;
  *why = "no arguments";
  if (!spawn->argv.count || !*spawn->argv.items[0]) return EINVAL;
  *why = "the working directory's path is too long";
  if (strlen(msg_string(spawn->cwd)) >= PATH_SIZE_MAX) return ENAMETOOLONG;
  *why = "console_socket needs tty and adopt_pid_file";
  if (msg_is_set(spawn->console_socket) && (!spawn->tty || !msg_is_set(spawn->adopt_pid_file))) return EINVAL;
  *why = "tty with adopt_pid_file needs console_socket";
  if (spawn->tty && msg_is_set(spawn->adopt_pid_file) && !msg_is_set(spawn->console_socket)) return EINVAL;
  *why = "id";
  return object_check_id(msg_string(spawn->id));
}

enum op_state process_start(struct op_context *context, OpResult *result, const Spawn *spawn, struct launch *launch) {
  static char *const no_env[] = {NULL};
  const char *why, *id = msg_string(spawn->id);
  int error = check_spawn(spawn, &why);
  if (error) return op_fail(context, result, error, "start process %s: %s", id, why);
  struct process *process = process_new(id);
  process->has_size = spawn->has_size;
  process->size = spawn->size;
  if (msg_is_set(spawn->adopt_pid_file)) process->adopt_pid_file = xstrdup(spawn->adopt_pid_file);
  launch->argv = spawn->argv.items;
  launch->env = spawn->env.count ? spawn->env.items : no_env;
  launch->cwd = spawn->cwd;
  launch->uid = spawn->uid;
  launch->gid = spawn->gid;
  launch->groups = spawn->groups;
  launch->groups_count = spawn->groups_count;
  launch->size = spawn->has_size ? &spawn->size : NULL;
  launch->tty = spawn->tty && !msg_is_set(spawn->console_socket);
  int ours[3] = {-1, -1, -1}, theirs[3] = {-1, -1, -1};
  error = open_stdio(spawn, launch->exec_in != NULL, ours, theirs);
  if (!error) error = make_channels(process, spawn, ours);
  if (!error && msg_is_set(spawn->console_socket)) error = console_open(process, spawn->console_socket, spawn->stdin);
  if (!error) error = fork_launch(process, launch, theirs);
  for (int i = 0; i < 3; i++) {
    close_fd(&ours[i]);
    close_fd(&theirs[i]);
  }
  if (error) {
    object_release(&process->object);
    return op_fail(context, result, error, "start process %s", id);
  }
  return op_pending(context, &process->wait);
}

enum op_state op_spawn(struct op_context *context, const Spawn *op, OpResult *result) {
  struct launch launch = {0};
  return process_start(context, result, op, &launch);
}
