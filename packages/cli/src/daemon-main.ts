/** The daemon's entry: the cache first, then everything that it is to hold. */
import './prelude.ts';

await import('./daemon-process.ts');
