import { open, stat } from 'node:fs/promises';

/** Makes the file durable; answers with its size. */
export async function syncFile(path: string): Promise<number> {
  const handle = await open(path, 'r');
  try {
    await handle.datasync();
  } finally {
    await handle.close();
  }
  return (await stat(path)).size;
}
