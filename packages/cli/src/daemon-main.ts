/** The daemon's entry: the cache first, then everything that it is to hold. */
import './compile-cache.ts';

await import('./daemon-process.ts');
