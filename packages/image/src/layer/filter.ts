/**
 * From the tar of a layer, as registries and builders make it, to one that sqfstar takes and overlayfs understands.
 *
 * What comes out has every name once; whiteouts are character devices 0/0 and opaque directories have overlayfs's
 * attribute; names are clean, hard links follow their targets. Directories and whiteouts come last, when everything
 * about them is known: sqfstar lets the entry of a directory decide even when it comes after what is in it.
 *
 * Data is passed on while it comes, on the assumption that nothing is replaced later. Where that does not hold (rare: no
 * builder makes such layers) `SecondPass` is thrown, and the caller goes over the stored tar twice: `indexing` makes
 * the plan, `planned` follows it.
 */
import { LAYER_BYTES_MAX, LAYER_METADATA_BYTES_MAX, TAR_PATH_BYTES_MAX } from '../limits.ts';
import { NO_XATTRS, type TarEntry } from '../tar/header.ts';
import { paddingOf, printable, type TarHandler } from '../tar/reader.ts';
import { encodeHeader, TAR_END, ZEROS } from '../tar/writer.ts';
import { SparseFill } from './sparse-fill.ts';
import { type Attributes, cleanPath, invalid, LayerTree, type Node, type Place } from './tree.ts';

/**
 * Where the new tar goes. The root is no entry: sqfstar is told about it when it starts, of which it does not use the
 * owner. Nobody sees it anyway: the root of a container is its own upper directory.
 */
export interface LayerSink {
  start(root: Attributes): void;
  write(bytes: Buffer): void;
}

/** What was passed on already would have to be taken back. */
export class SecondPass extends Error {
  override readonly name = 'SecondPass';
}

/** Entry number → the names that its data has in the end. */
export type LayerPlan = ReadonlyMap<number, readonly string[]>;

const WHITEOUT_PREFIX = '.wh.';
const WHITEOUT_META_PREFIX = '.wh..wh.';
const OPAQUE_WHITEOUT = '.wh..wh..opq';
const OPAQUE_XATTR = 'trusted.overlay.opaque';
/** What squashfs can store; overlayfs's own attributes are not for a layer to set. */
const XATTR_KEPT = /^(?:user|security|trusted)\.(?!overlay\.)/;
const ID_MAX = 0xffff_fffe;
const TIME_MAX = 0xffff_ffff;
const MAJOR_MAX = 0xfff;
const MINOR_MAX = 0xf_ffff;
/** What a directory gets that has no entry of its own. */
const IMPLIED: Attributes = { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: NO_XATTRS };

export class LayerFilter implements TarHandler {
  readonly #sink: LayerSink | undefined;
  readonly #plan: LayerPlan | undefined;
  readonly #tree: LayerTree;
  readonly #bytesMax: number;
  #number = -1;
  #started = false;
  /** The entry whose data comes now is passed on. */
  #passing = false;
  #padding = 0;
  #sparse: SparseFill | undefined;
  /** Further names of it. */
  #links: readonly string[] = [];
  #entry: TarEntry | undefined;
  #bytes = 0;
  #metadataBytes = 0;

  /** Passes data on while it comes; throws `SecondPass` when that was too early. */
  static streaming(sink: LayerSink, bytesMax = LAYER_BYTES_MAX): LayerFilter {
    return new LayerFilter(sink, undefined, bytesMax);
  }

  /** Only looks. */
  static indexing(bytesMax = LAYER_BYTES_MAX): LayerFilter {
    return new LayerFilter(undefined, undefined, bytesMax);
  }

  /** Follows the plan of an `indexing` filter that saw the same tar. */
  static planned(sink: LayerSink, index: LayerFilter): LayerFilter {
    return new LayerFilter(sink, index.plan(), index.#bytesMax, index.#tree);
  }

  private constructor(
    sink: LayerSink | undefined,
    plan: LayerPlan | undefined,
    bytesMax: number,
    tree?: LayerTree,
  ) {
    this.#bytesMax = bytesMax;
    this.#sink = sink;
    this.#plan = plan;
    this.#tree =
      tree ??
      new LayerTree(() => {
        if (sink !== undefined) throw new SecondPass();
      });
  }

  onEntry(entry: TarEntry): void {
    this.#number += 1;
    this.#bytes += entry.sparse?.realBytes ?? entry.sizeBytes;
    if (this.#bytes > this.#bytesMax) throw invalid(`its files have more than ${this.#bytesMax} bytes`);
    this.#metadataBytes += entry.name.length + entry.linkName.length;
    for (const [name, value] of entry.xattrs) this.#metadataBytes += name.length + value.length;
    if (this.#metadataBytes > LAYER_METADATA_BYTES_MAX) {
      throw invalid(`its names and attributes have more than ${LAYER_METADATA_BYTES_MAX} bytes`);
    }
    this.#passing = false;
    this.#links = [];
    this.#entry = undefined;
    if (this.#plan === undefined) this.#place(entry);
    else this.#follow(entry);
    this.#padding = this.#passing ? paddingOf(entry.sparse?.realBytes ?? entry.sizeBytes) : 0;
  }

  onData(data: Buffer): void {
    if (!this.#passing || this.#sink === undefined) return;
    if (this.#sparse === undefined) this.#sink.write(data);
    else this.#sparse.data(data, this.#sink);
  }

  onEntryEnd(): void {
    if (this.#passing && this.#sink !== undefined) this.#sparse?.end(this.#sink);
    if (this.#padding > 0) this.#sink?.write(ZEROS.subarray(0, this.#padding));
    const entry = this.#entry;
    if (entry === undefined) return;
    for (const name of this.#links) {
      this.#emit({ ...entry, type: 'link', name, linkName: entry.name, sizeBytes: 0, xattrs: NO_XATTRS });
    }
  }

  /** The input has ended: writes directories, whiteouts, and the end of the archive. */
  finish(): void {
    this.#start();
    this.#finishDirectory(this.#tree.root, '');
    this.#sink?.write(TAR_END);
  }

  plan(): LayerPlan {
    const plan = new Map<number, string[]>();
    const visit = (directory: Node, prefix: string): void => {
      for (const [name, node] of directory.children ?? []) {
        if (node.kind === 'directory') {
          visit(node, `${prefix}${name}/`);
        } else if (node.inode >= 0) {
          const names = plan.get(node.inode);
          if (names === undefined) plan.set(node.inode, [prefix + name]);
          else names.push(prefix + name);
        }
      }
    };
    visit(this.#tree.root, '');
    return plan;
  }

  #place(entry: TarEntry): void {
    const components = cleanPath(entry.name);
    const last = components.at(-1) ?? '';
    if (last.startsWith(WHITEOUT_PREFIX)) {
      this.#whiteout(entry, last);
      return;
    }
    const place = this.#tree.place(entry.name);
    if (entry.type === 'directory') {
      if (
        place === undefined &&
        this.#started &&
        !sameRoot(this.#tree.root.attributes, attributesOf(entry))
      ) {
        throw new SecondPass();
      }
      this.#tree.setDirectory(place, attributesOf(entry));
      return;
    }
    if (place === undefined) throw invalid(`its root is a ${entry.type}, not a directory`);
    if (entry.type === 'link') this.#link(entry, place);
    else this.#file(entry, place);
  }

  #file(entry: TarEntry, place: Place): void {
    checkFile(entry);
    this.#tree.setFile(place, entry.type === 'symlink' ? 'symlink' : 'other', this.#number, entry.linkName);
    this.#pass({ ...entry, ...attributesOf(entry), name: place.path });
  }

  #link(entry: TarEntry, place: Place): void {
    const { node, path } = this.#tree.linkTarget(entry.linkName, entry.name);
    if (path === place.path) return;
    this.#tree.setFile(place, node.kind === 'symlink' ? 'symlink' : 'other', node.inode, node.target);
    this.#emit({ ...entry, ...IMPLIED, name: place.path, linkName: path });
  }

  #whiteout(entry: TarEntry, last: string): void {
    const parent = this.#tree.parentOf(entry.name);
    if (last === OPAQUE_WHITEOUT) {
      parent.opaque = true;
    } else if (!last.startsWith(WHITEOUT_META_PREFIX)) {
      const name = last.slice(WHITEOUT_PREFIX.length);
      if (name === '' || name === '.' || name === '..')
        throw invalid(`${printable(entry.name)} removes nothing`);
      this.#tree.setWhiteout(parent, name);
    }
  }

  /** The second time: the entry's data belongs to the names that the plan has for it. */
  #follow(entry: TarEntry): void {
    const [name, ...links] = this.#plan?.get(this.#number) ?? [];
    if (name === undefined) return;
    this.#pass({ ...entry, ...attributesOf(entry), name });
    this.#links = links;
  }

  #pass(entry: TarEntry): void {
    this.#entry = entry;
    this.#passing = entry.type === 'file';
    this.#sparse = entry.sparse === undefined ? undefined : new SparseFill(entry.sparse);
    const { sparse, ...plain } = entry;
    this.#emit({ ...plain, sizeBytes: sparse?.realBytes ?? entry.sizeBytes });
  }

  #emit(entry: TarEntry): void {
    if (this.#sink === undefined) return;
    this.#start();
    this.#sink.write(encodeHeader(entry));
  }

  #start(): void {
    if (this.#started || this.#sink === undefined) return;
    this.#started = true;
    this.#sink.start(this.#tree.root.attributes ?? IMPLIED);
  }

  #finishDirectory(directory: Node, prefix: string): void {
    for (const [name, node] of directory.children ?? []) {
      const path = prefix + name;
      if (node.kind === 'none') {
        this.#emit({ ...NOTHING, ...IMPLIED, mode: 0, name: path, type: 'char' });
      } else if (node.kind === 'directory') {
        const attributes = node.attributes ?? IMPLIED;
        const opaque = node.opaque || node.whiteout;
        const xattrs = opaque
          ? new Map([...attributes.xattrs, [OPAQUE_XATTR, Buffer.from('y')]])
          : attributes.xattrs;
        this.#emit({ ...NOTHING, ...attributes, xattrs, name: path, type: 'directory' });
        this.#finishDirectory(node, `${path}/`);
      }
    }
  }
}

const NOTHING = { sizeBytes: 0, linkName: '', devMajor: 0, devMinor: 0 } as const;

function attributesOf(entry: TarEntry): Attributes {
  const { mode, uid, gid, mtime } = entry;
  for (const id of [uid, gid]) {
    if (id < 0 || id > ID_MAX)
      throw invalid(`${printable(entry.name)} belongs to ${id}, which is no user or group`);
  }
  let { xattrs } = entry;
  if (xattrs.size > 0) xattrs = new Map([...xattrs].filter(([name]) => XATTR_KEPT.test(name)));
  return { mode, uid, gid, mtime: Math.min(Math.max(mtime, 0), TIME_MAX), xattrs };
}

function checkFile(entry: TarEntry): void {
  if (entry.type === 'symlink' && entry.linkName === '') {
    throw invalid(`${printable(entry.name)} is a symbolic link to nothing`);
  }
  if (entry.type === 'symlink' && entry.linkName.length > TAR_PATH_BYTES_MAX) {
    throw invalid(`the target of the symbolic link ${printable(entry.name)} is too long`);
  }
  if (entry.type === 'char' || entry.type === 'block') {
    const { devMajor, devMinor } = entry;
    if (devMajor < 0 || devMajor > MAJOR_MAX || devMinor < 0 || devMinor > MINOR_MAX) {
      throw invalid(`${printable(entry.name)} is the device ${devMajor}:${devMinor}, which cannot be`);
    }
  }
}

/** Whether sqfstar was told the same about the root. */
function sameRoot(before: Attributes | undefined, now: Attributes): boolean {
  return (before ?? IMPLIED).mode === now.mode;
}
