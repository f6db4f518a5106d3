/* The work of Archive, in a process of its own. */
#pragma once

#include <stdbool.h>

struct tar_task {
  bool pack;
  const char *root, *path, *base_name;
  bool no_overwrite_dir_non_dir, numeric_owner_root;
};

/* Works on descriptors 0 to 2; a failure goes to `report` (launch.h). */
_Noreturn void tar_run(const struct tar_task *task, int report);
/* Removes whatever `name` is, relative to the working directory; the mount it is on only. 0 or errno. */
int remove_any(const char *name);
