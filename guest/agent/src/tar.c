/*
 * Packs and unpacks pax tar streams with libarchive, after a chroot: a symbolic link of a hostile
 * image leads nowhere else.
 *
 * Unpacking follows Docker: what is in the way of an entry is removed, except that a directory stays
 * for a directory; with no_overwrite_dir_non_dir a directory is not replaced by something else, nor
 * the reverse. Owners are numbers; nothing is looked up.
 */
#define _GNU_SOURCE
#include "tar.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <langinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launch.h"
#include "limits.h"

#define BLOCK_SIZE (64u << 10)

static int report_socket;

/*
 * libarchive asks for the character set of the locale, and would convert UTF-8 names to ASCII with
 * the tables that a static program has not. Linked with --wrap=nl_langinfo: names are UTF-8.
 */
char *__real_nl_langinfo(nl_item item);
char *__wrap_nl_langinfo(nl_item item);
char *__wrap_nl_langinfo(nl_item item) { return item == CODESET ? (char *)"UTF-8" : __real_nl_langinfo(item); }

_Noreturn void tar_fail(int error, const char *what, const char *why) {
  struct report report = {.kind = REPORT_ERROR, .value = error > 0 ? error : EIO};
  snprintf(report.what, sizeof report.what, "%.50s: %.60s", what, why);
  dprintf(STDERR_FILENO, "%s: %s\n", what, why);
  report_send(report_socket, &report, -1);
  _exit(1);
}

static _Noreturn void fail_errno(const char *what) { tar_fail(errno, what, strerror(errno)); }

static _Noreturn void fail_archive(struct archive *archive, const char *what) {
  const char *why = archive_error_string(archive);
  tar_fail(archive_errno(archive), what, why ? why : "unknown error");
}

static void complain(struct archive *archive, const char *name) {
  const char *why = archive_error_string(archive);
  dprintf(STDERR_FILENO, "%s: %s\n", name ? name : "?", why ? why : "unknown warning");
}

/* --- Pack ---------------------------------------------------------------------------------- */

static la_ssize_t write_out(struct archive *archive, void *context, const void *data, size_t size) {
  (void)context;
  int error = write_all(STDOUT_FILENO, data, size);
  if (!error) return (la_ssize_t)size;
  archive_set_error(archive, -error, "%s", strerror(-error));
  return -1;
}

/* The directory to go to, and the name there, of a path; "/" and "a/.." are entered. */
static void split_path(const char *path, char *parent, char *name) {
  size_t size = strlen(path);
  strcpy(parent, path);
  while (size > 1 && parent[size - 1] == '/') parent[--size] = 0;
  char *slash = strrchr(parent, '/');
  const char *last = slash ? slash + 1 : parent;
  if (!*last || !strcmp(last, ".") || !strcmp(last, "..")) {
    strcpy(name, ".");
    return;
  }
  strcpy(name, last);
  if (!slash) strcpy(parent, ".");
  else if (slash == parent) parent[1] = 0;
  else *slash = 0;
}

/* "NAME/x" becomes "BASE/x"; without a base it stays, but for "./x", which becomes "x". */
static void rename_entry(struct archive_entry *entry, const char *name, const char *base) {
  const char *own = archive_entry_pathname(entry);
  size_t size = strlen(name);
  if (!own || strncmp(own, name, size) || (own[size] && own[size] != '/')) return;
  const char *rest = own + size;
  char *path = NULL; /* a tree can be deeper than any path may be long */
  if (*base) {
    if (asprintf(&path, "%s%s", base, rest) < 0) tar_fail(ENOMEM, "archive", strerror(ENOMEM));
  } else if (!strcmp(name, ".")) {
    path = strdup(*rest ? rest + 1 : "./");
    if (!path) tar_fail(ENOMEM, "archive", strerror(ENOMEM));
  } else {
    return;
  }
  archive_entry_copy_pathname(entry, path);
  free(path);
}

static void copy_data(struct archive *from, struct archive *to, const char *name) {
  int64_t offset = 0, done = 0;
  const void *data;
  size_t size;
  int result;
  static const uint8_t zeros[BLOCK_SIZE];
  while ((result = archive_read_data_block(from, &data, &size, &offset)) == ARCHIVE_OK) {
    while (done < offset) { /* a hole: the writer knows where it is and skips it */
      size_t gap = (size_t)MIN(offset - done, (int64_t)sizeof zeros);
      if (archive_write_data(to, zeros, gap) < 0) fail_archive(to, name);
      done += (int64_t)gap;
    }
    if (size && archive_write_data(to, data, size) < 0) fail_archive(to, name);
    done += (int64_t)size;
  }
  if (result != ARCHIVE_EOF) complain(from, name); /* unreadable, or it shrank: the rest is zeros */
}

/* Overlayfs keeps a deleted name as a character device 0/0, and what hides everything below it in an attribute. */
static bool is_whiteout(struct archive_entry *entry) {
  return archive_entry_filetype(entry) == AE_IFCHR && !archive_entry_rdevmajor(entry) && !archive_entry_rdevminor(entry);
}

/* Leaves out the overlay's own attributes; whether the directory is opaque. */
static bool take_overlay_attributes(struct archive_entry *entry) {
  static const char own[] = "trusted.overlay.";
  const char *name;
  const void *value;
  size_t size;
  bool found = false, opaque = false;
  struct archive_entry *copy = archive_entry_clone(entry);
  if (!copy) tar_fail(ENOMEM, "archive", strerror(ENOMEM));
  archive_entry_xattr_clear(entry);
  archive_entry_xattr_reset(copy);
  while (archive_entry_xattr_next(copy, &name, &value, &size) == ARCHIVE_OK) {
    found = !strncmp(name, own, sizeof own - 1);
    if (!found) archive_entry_xattr_add_entry(entry, name, value, size);
    else if (!strcmp(name + sizeof own - 1, "opaque") && size == 1 && *(const char *)value == 'y') opaque = true;
  }
  archive_entry_free(copy);
  return opaque;
}

static void write_mark(struct archive *tar, struct archive_entry *like, const char *path) {
  struct archive_entry *mark = archive_entry_new();
  if (!mark) tar_fail(ENOMEM, "archive", strerror(ENOMEM));
  archive_entry_copy_pathname(mark, path);
  archive_entry_set_filetype(mark, AE_IFREG);
  archive_entry_set_perm(mark, 0);
  archive_entry_set_size(mark, 0);
  archive_entry_set_mtime(mark, archive_entry_mtime(like), 0);
  if (archive_write_header(tar, mark) != ARCHIVE_OK) fail_archive(tar, path);
  archive_entry_free(mark);
}

/* Whether the entry itself has still to be written: a whiteout is written here. */
static bool to_layer(struct archive *tar, struct archive_entry *entry) {
  char path[2 * PATH_SIZE_MAX];
  const char *own = archive_entry_pathname(entry);
  if (!is_whiteout(entry)) return true;
  const char *slash = strrchr(own, '/');
  int parent = slash ? (int)(slash - own) + 1 : 0;
  snprintf(path, sizeof path, "%.*s.wh.%s", parent, own, own + parent);
  write_mark(tar, entry, path);
  return false;
}

static void write_opaque_mark(struct archive *tar, struct archive_entry *entry) {
  char path[2 * PATH_SIZE_MAX];
  const char *own = archive_entry_pathname(entry);
  size_t size = strlen(own);
  snprintf(path, sizeof path, "%s%s.wh..wh..opq", own, size && own[size - 1] == '/' ? "" : "/");
  write_mark(tar, entry, path);
}

static void write_entry(struct archive *disk, struct archive *tar, struct archive_entry *entry) {
  const char *name = archive_entry_pathname(entry);
  int result = archive_write_header(tar, entry);
  if (result == ARCHIVE_FATAL) fail_archive(tar, name ? name : "archive");
  if (result != ARCHIVE_OK) complain(tar, name);
  if (result == ARCHIVE_FAILED) return; /* a socket, say */
  if (archive_entry_size(entry) > 0) copy_data(disk, tar, name);
}

static void pack(const struct tar_task *task) {
  char parent[PATH_SIZE_MAX], name[PATH_SIZE_MAX];
  split_path(task->path, parent, name);
  if (chdir(parent)) fail_errno(parent);
  struct archive *disk = archive_read_disk_new(), *tar = archive_write_new();
  struct archive_entry_linkresolver *links = archive_entry_linkresolver_new();
  struct archive_entry *entry = archive_entry_new();
  if (!disk || !tar || !links || !entry) tar_fail(ENOMEM, "archive", strerror(ENOMEM));
  archive_read_disk_set_symlink_physical(disk);
  archive_write_set_format_pax(tar);
  archive_write_set_format_option(tar, "pax", "xattrheader", "SCHILY");
  archive_write_set_bytes_per_block(tar, (int)BLOCK_SIZE);
  archive_write_set_bytes_in_last_block(tar, 1);
  archive_entry_linkresolver_set_strategy(links, ARCHIVE_FORMAT_TAR_PAX_INTERCHANGE);
  if (archive_write_open(tar, NULL, NULL, write_out, NULL) != ARCHIVE_OK) fail_archive(tar, "open the stream");
  if (archive_read_disk_open(disk, name) != ARCHIVE_OK) fail_archive(disk, task->path);
  bool first = true;
  for (;;) {
    int result = archive_read_next_header2(disk, entry);
    if (result == ARCHIVE_EOF) break;
    if (first && result < ARCHIVE_WARN) fail_archive(disk, task->path);
    if (result == ARCHIVE_FATAL) fail_archive(disk, task->path);
    if (result != ARCHIVE_OK) complain(disk, archive_entry_pathname(entry));
    if (result == ARCHIVE_FAILED) continue; /* it vanished meanwhile */
    first = false;
    archive_read_disk_descend(disk);
    archive_entry_unset_atime(entry);
    archive_entry_unset_ctime(entry);
    archive_entry_unset_birthtime(entry);
    rename_entry(entry, name, task->base_name);
    bool opaque = task->layer && take_overlay_attributes(entry);
    if (task->layer && !to_layer(tar, entry)) continue;
    struct archive_entry *linked = entry, *spare = NULL;
    archive_entry_linkify(links, &linked, &spare);
    if (linked) write_entry(disk, tar, linked);
    if (opaque && archive_entry_filetype(entry) == AE_IFDIR) write_opaque_mark(tar, entry);
  }
  if (archive_write_close(tar) != ARCHIVE_OK) fail_archive(tar, "close the stream");
}

/* --- Unpack -------------------------------------------------------------------------------- */

/* Without leading "/" and "./"; "." for what is left of nothing. */
static const char *relative(const char *path) {
  while (*path == '/' || (path[0] == '.' && (path[1] == '/' || !path[1]))) path++;
  return *path ? path : ".";
}

static void clear_the_way(const struct tar_task *task, const char *name, mode_t type) {
  char path[PATH_SIZE_MAX];
  struct stat status;
  size_t size = strlen(name);
  if (size >= sizeof path) tar_fail(ENAMETOOLONG, name, strerror(ENAMETOOLONG));
  strcpy(path, name);
  while (size > 1 && path[size - 1] == '/') path[--size] = 0;
  if (!strcmp(path, ".") || lstat(path, &status)) return;
  bool is_directory = S_ISDIR(status.st_mode), wants_directory = S_ISDIR(type);
  if (is_directory && wants_directory) return;
  if (task->no_overwrite_dir_non_dir && is_directory) tar_fail(EISDIR, path, "cannot overwrite directory with non-directory");
  if (task->no_overwrite_dir_non_dir && wants_directory) tar_fail(ENOTDIR, path, "cannot overwrite non-directory with directory");
  int error = remove_any(path);
  if (error) tar_fail(error, path, strerror(error));
}

/* A copy of the name, its first part replaced by `base`. */
static char *rebased(const char *name, const char *base) {
  char path[2 * PATH_SIZE_MAX];
  if (!*base || !strcmp(name, ".")) return strdup(name);
  const char *rest = name + strcspn(name, "/");
  if (snprintf(path, sizeof path, "%s%s", base, rest) >= (int)sizeof path) tar_fail(ENAMETOOLONG, name, strerror(ENAMETOOLONG));
  return strdup(path);
}

static void unpack_entry(const struct tar_task *task, struct archive *tar, struct archive *disk, struct archive_entry *entry) {
  const char *given = archive_entry_pathname(entry), *link = archive_entry_hardlink(entry);
  if (!given) tar_fail(EINVAL, "archive", "an entry without a name");
  char *name = rebased(relative(given), task->base_name);
  if (!name) tar_fail(ENOMEM, "archive", strerror(ENOMEM));
  if (path_has_dotdot(name) || (link && path_has_dotdot(link))) tar_fail(EINVAL, given, "the name leads outside");
  if (link) {
    char *target = rebased(relative(link), task->base_name);
    /* A link to itself must not remove its target first. */
    bool itself = target && !strcmp(target, name);
    archive_entry_copy_hardlink(entry, target);
    free(target);
    if (itself) {
      free(name);
      return;
    }
  }
  archive_entry_copy_pathname(entry, name);
  clear_the_way(task, name, link ? S_IFREG : archive_entry_filetype(entry));
  if (task->numeric_owner_root) {
    archive_entry_set_uid(entry, 0);
    archive_entry_set_gid(entry, 0);
  }
  int result = archive_write_header(disk, entry);
  if (result < ARCHIVE_WARN) fail_archive(disk, name);
  if (result != ARCHIVE_OK) complain(disk, name);
  if (archive_entry_size(entry) > 0 || !archive_entry_size_is_set(entry)) {
    const void *data;
    size_t size;
    int64_t offset;
    while ((result = archive_read_data_block(tar, &data, &size, &offset)) == ARCHIVE_OK)
      if (archive_write_data_block(disk, data, size, offset) < 0) fail_archive(disk, name);
    if (result != ARCHIVE_EOF) fail_archive(tar, name);
  }
  result = archive_write_finish_entry(disk);
  if (result < ARCHIVE_WARN) fail_archive(disk, name);
  if (result != ARCHIVE_OK) complain(disk, name);
  free(name);
}

static void unpack(const struct tar_task *task) {
  if (chdir(task->path)) fail_errno(task->path);
  struct archive *tar = archive_read_new(), *disk = archive_write_disk_new();
  struct archive_entry *entry;
  int result;
  if (!tar || !disk) tar_fail(ENOMEM, "archive", strerror(ENOMEM));
  archive_read_support_format_tar(tar);
  archive_read_support_format_empty(tar);
  archive_write_disk_set_options(disk, ARCHIVE_EXTRACT_OWNER | ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_XATTR |
                                           ARCHIVE_EXTRACT_ACL | ARCHIVE_EXTRACT_SECURE_NODOTDOT);
  if (archive_read_open_fd(tar, STDIN_FILENO, BLOCK_SIZE) != ARCHIVE_OK) fail_archive(tar, "open the stream");
  while ((result = archive_read_next_header(tar, &entry)) == ARCHIVE_OK || result == ARCHIVE_WARN) {
    if (result == ARCHIVE_WARN) complain(tar, archive_entry_pathname(entry));
    unpack_entry(task, tar, disk, entry);
  }
  if (result != ARCHIVE_EOF) fail_archive(tar, "read the stream");
  if (archive_write_close(disk) != ARCHIVE_OK) fail_archive(disk, "set the directories' times");
  /* What pads the stream's end is the host's to send and ours to take. */
  static uint8_t rest[BLOCK_SIZE];
  while (read(STDIN_FILENO, rest, sizeof rest) > 0) {
  }
}

void tar_run(const struct tar_task *task, int report) {
  report_socket = report;
  umask(0);
  int lower_fd = task->changes ? open(task->lower, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
  if (task->changes && lower_fd < 0) fail_errno(task->lower);
  if (chdir(task->root) || chroot(".") || chdir("/")) fail_errno(task->root);
  if (task->changes) list_changes(lower_fd);
  else if (task->pack) pack(task);
  else unpack(task);
  _exit(0);
}
