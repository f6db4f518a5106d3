/** Node.js keeps what it compiled, types already stripped, in a folder that is ours alone: not in the shared /tmp. */
import { enableCompileCache } from 'node:module';
import { homedir } from 'node:os';
import { join } from 'node:path';

enableCompileCache(join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'arcbox', 'node'));
