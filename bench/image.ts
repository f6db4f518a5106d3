/**
 * Images of 120 MB in one layer: load, pull from a registry on loopback, save and import, through the command. The peers
 * are what cannot be avoided: sqfstar alone, fed by cat; curl fetching the blob; cp writing the archive.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { dockerArchive, ociArchive, testImage } from '../packages/image/test/support/archives.ts';
import { DockerRegistry } from '../packages/image/test/support/registry.ts';
import { ArcBox } from './lib/command.ts';
import type { Benchmark } from './lib/main.ts';

const PAIRS = 10;
const LAYER_BYTES = 120e6;
/** Most files are small, most bytes are in large ones. */
const FILE_BYTES = [300, 1_500, 700, 12_000, 4_000, 90_000, 2_000, 700_000];
const SQFSTAR = 'sqfstar -quiet -no-progress -noI -noD -noF -noX';

const image: Benchmark = {
  summary: 'load, pull, save and import of a 120 MB image, against sqfstar, curl and cp alone',
  async run(report) {
    process.env.DOCKER_CONFIG = '/nonexistent';
    const work = mkdtempSync(path.join(os.tmpdir(), 'arcbox-bench-'));
    const file = (name: string): string => path.join(work, name);
    try {
      await using registry = await DockerRegistry.start();
      await using arcbox = await ArcBox.create();
      const plain = oneLayer();
      const [layer = Buffer.alloc(0)] = plain.layers;
      const packed = { ...plain, blobs: [gzipSync(layer)] };
      const name = `${registry.host}/bench:1`;
      writeFileSync(file('layer.tar'), layer);
      writeFileSync(file('load.tar'), dockerArchive(plain, ['bench:1']));
      writeFileSync(file('oci.tar'), ociArchive(packed, [name]));
      await arcbox.run('load', '-i', file('oci.tar'));
      await arcbox.run('push', name);
      await arcbox.run('rmi', name);
      const blob = `http://${registry.host}/v2/bench/blobs/sha256:${createHash('sha256')
        .update(packed.blobs[0] ?? '')
        .digest('hex')}`;
      const shell = (command: string): number => {
        const began = performance.now();
        execFileSync('sh', ['-c', command]);
        return performance.now() - began;
      };
      const sqfstar = (): number => {
        rmSync(file('peer.squashfs'), { force: true });
        return shell(`cat ${file('layer.tar')} | ${SQFSTAR} ${file('peer.squashfs')}`);
      };
      const timed = async (...args: string[]): Promise<number> => (await arcbox.run(...args)).elapsedMs;
      const samples = { load: [], save: [], import: [], pull: [] } as Record<string, number[]>;
      const peers = { load: [], save: [], import: [], pull: [] } as Record<string, number[]>;
      for (let pair = 0; pair <= PAIRS; pair += 1) {
        const load = await timed('load', '-i', file('load.tar'));
        const loadPeer = sqfstar();
        const save = await timed('save', '-o', file('saved.tar'), 'bench:1');
        const savePeer = shell(`cp ${file('load.tar')} ${file('copied.tar')}`);
        await arcbox.run('rmi', 'bench:1');
        const imported = await timed('import', file('layer.tar'), 'bench:2');
        const importPeer = sqfstar();
        await arcbox.run('rmi', 'bench:2');
        const pull = await timed('pull', '-q', name);
        const pullPeer = shell(`curl -s -o ${file('blob')} ${blob}`);
        await arcbox.run('rmi', name);
        // The first round warms caches.
        if (pair === 0) continue;
        samples.load?.push(load);
        peers.load?.push(loadPeer);
        samples.save?.push(save);
        peers.save?.push(savePeer);
        samples.import?.push(imported);
        peers.import?.push(importPeer);
        samples.pull?.push(pull);
        peers.pull?.push(pullPeer);
      }
      const note = `${Math.round(layer.length / 1e6)} MB layer, ${Math.round((packed.blobs[0]?.length ?? 0) / 1e6)} MB packed; through the command`;
      const metric = (metricName: string, peer: string, bar?: number): void =>
        report.add({
          bench: 'image',
          metric: metricName,
          unit: 'ms',
          samples: samples[metricName] ?? [],
          peer: { name: peer, samples: peers[metricName] ?? [] },
          ...(bar === undefined ? {} : { bar: { kind: 'at-most', value: bar } }),
          note,
        });
      metric('load', 'cat | sqfstar', 1000);
      metric('pull', 'curl of the blob', 1500);
      metric('save', 'cp of the archive');
      metric('import', 'cat | sqfstar');
    } finally {
      rmSync(work, { recursive: true });
    }
  },
};

/** Contents that pack as programs do: pieces of the one that runs this. */
function oneLayer(): ReturnType<typeof testImage> {
  const source = readFileSync(process.execPath);
  const files = [];
  let at = 0;
  for (let bytes = 0, count = 0; bytes < LAYER_BYTES; count += 1) {
    const size = FILE_BYTES[count % FILE_BYTES.length] ?? 0;
    if (at + size > statSync(process.execPath).size) at = count;
    files.push({ name: `usr/lib/part-${count % 100}/file-${count}`, data: source.subarray(at, at + size) });
    at += size;
    bytes += size;
  }
  return testImage([files]);
}

export default image;
