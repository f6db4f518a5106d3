/* The work of Archive, in a process of its own. */
#pragma once

#include <stdbool.h>

struct tar_task {
  bool pack, changes; /* neither: unpack */
  const char *root, *path, *base_name, *lower;
  bool no_overwrite_dir_non_dir, numeric_owner_root, layer;
};

/* Works on descriptors 0 to 2; a failure goes to `report` (launch.h). */
_Noreturn void tar_run(const struct tar_task *task, int report);
/* The failure that the archive's end tells. */
_Noreturn void tar_fail(int error, const char *what, const char *why);
/* changes.c: lists what the upper directory, which is the working directory, changes in the file system at `lower_fd`. */
void list_changes(int lower_fd);
/* Removes whatever `name` is, relative to the working directory; the mount it is on only. 0 or errno. */
int remove_any(const char *name);
