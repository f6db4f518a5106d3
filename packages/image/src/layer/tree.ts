/**
 * What a layer's tar makes: a tree of names, as if every entry had been unpacked in order.
 *
 * Tar means that a later entry replaces an earlier one, that a directory which replaces a file loses it and the
 * other way round, and that a hard link keeps what its target was then. The tree knows which entry's data (`inode`, an
 * entry's number) each name has in the end. Directories and whiteouts have no data, so what they are is
 * decided at the end; only a replaced name that has data matters to somebody who has already passed the data on.
 */
import { ImageError } from '../errors.ts';
import { LAYER_NAMES_MAX, SYMLINKS_FOLLOWED_MAX, TAR_NAME_BYTES_MAX, TAR_PATH_BYTES_MAX } from '../limits.ts';
import { printable } from '../tar/reader.ts';

export interface Attributes {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: number;
  readonly xattrs: ReadonlyMap<string, Buffer>;
}

/** `none`: only a whiteout. */
type NodeKind = 'none' | 'directory' | 'symlink' | 'other';

export class Node {
  kind: NodeKind;
  /** Of a directory that has an entry of its own. */
  attributes: Attributes | undefined = undefined;
  children: Map<string, Node> | undefined = undefined;
  /** Number of the entry that has the data; of what is no directory. */
  inode = -1;
  /** Of a symbolic link. */
  target = '';
  /** The layer removes what is below under this name. */
  whiteout = false;
  /** Nothing of the layers below is seen in this directory. */
  opaque = false;

  constructor(kind: NodeKind) {
    this.kind = kind;
    if (kind === 'directory') this.children = new Map();
  }
}

/** A name that has data was replaced. */
export class Replaced extends Error {
  override readonly name = 'Replaced';
}

export interface Place {
  /** Where the entry really is, symbolic links in its parents followed. Without a leading slash. */
  readonly path: string;
  readonly parent: Node;
  readonly last: string;
}

export class LayerTree {
  readonly root = new Node('directory');
  #names = 0;
  /** Called when a name that has data is replaced or removed. */
  readonly #onReplaced: () => void;

  constructor(onReplaced: () => void) {
    this.#onReplaced = onReplaced;
  }

  /** Finds where an entry belongs; parents that are missing are made. Undefined: it is the root itself. */
  place(name: string): Place | undefined {
    return this.#walk(name, true);
  }

  setDirectory(place: Place | undefined, attributes: Attributes): void {
    if (place === undefined) {
      this.root.attributes = attributes;
      return;
    }
    const node = this.#directory(place.parent, place.last);
    node.attributes = attributes;
  }

  /** Puts something that is no directory at `place`. */
  setFile(place: Place, kind: 'symlink' | 'other', inode: number, target: string): void {
    const existing = place.parent.children?.get(place.last);
    if (existing !== undefined) this.#drop(existing);
    const node = this.#node(kind);
    node.inode = inode;
    node.target = target;
    node.whiteout = existing?.whiteout ?? false;
    place.parent.children?.set(place.last, node);
  }

  /** The node and real path that a hard link names. Throws `ERR_ARCBOX_LAYER_INVALID` when there is nothing to link to. */
  linkTarget(linkName: string, from: string): { node: Node; path: string } {
    const place = this.#walk(linkName, false);
    const node = place?.parent.children?.get(place.last);
    if (place === undefined || node === undefined || node.kind === 'none') {
      throw invalid(
        `${printable(from)} is a hard link to ${printable(linkName)}, which is not in the layer before it`,
      );
    }
    if (node.kind === 'directory') {
      throw invalid(`${printable(from)} is a hard link to the directory ${printable(linkName)}`);
    }
    return { node, path: place.path };
  }

  setWhiteout(parent: Node, name: string): void {
    let node = parent.children?.get(name);
    if (node === undefined) {
      node = this.#node('none');
      parent.children?.set(name, node);
    }
    node.whiteout = true;
  }

  /** The directory that an entry `name` is in, made when it is missing. */
  parentOf(name: string): Node {
    return this.#walk(name, true)?.parent ?? this.root;
  }

  #walk(name: string, create: boolean): Place | undefined {
    const pending = cleanPath(name).reverse();
    const last = pending.shift();
    if (last === undefined) return undefined;
    const nodes = [this.root];
    const names: string[] = [];
    let followed = 0;
    for (let component = pending.pop(); component !== undefined; component = pending.pop()) {
      const current = nodes[nodes.length - 1] ?? this.root;
      if (component === '..') {
        // Only from a link's target: above the root is the root.
        if (nodes.length > 1) nodes.pop();
        names.pop();
        continue;
      }
      let child = current.children?.get(component);
      if (child?.kind === 'symlink') {
        followed += 1;
        if (followed > SYMLINKS_FOLLOWED_MAX)
          throw invalid(`${printable(name)} leads through a loop of links`);
        if (child.target.startsWith('/')) {
          nodes.length = 1;
          names.length = 0;
        }
        for (const part of child.target.split('/').reverse()) {
          if (part !== '' && part !== '.') pending.push(part);
        }
        continue;
      }
      if (child?.kind === 'other') {
        throw invalid(`${printable(name)} lies in ${printable(component)}, which is not a directory`);
      }
      if (child === undefined || child.kind === 'none') {
        if (!create)
          throw invalid(`a hard link names ${printable(name)}, which is not in the layer before it`);
        child = this.#directory(current, component);
      }
      nodes.push(child);
      names.push(component);
    }
    names.push(last);
    const path = names.join('/');
    if (path.length > TAR_PATH_BYTES_MAX) throw invalid(`${printable(name)} is too long`);
    return { path, parent: nodes[nodes.length - 1] ?? this.root, last };
  }

  /** The directory `name` in `parent`; whatever else has that name is replaced. */
  #directory(parent: Node, name: string): Node {
    const existing = parent.children?.get(name);
    if (existing?.kind === 'directory') return existing;
    if (existing !== undefined) this.#drop(existing);
    const node = this.#node('directory');
    node.whiteout = existing?.whiteout ?? false;
    parent.children?.set(name, node);
    return node;
  }

  /** Counts: one entry can make a thousand directories. */
  #node(kind: NodeKind): Node {
    this.#names += 1;
    if (this.#names > LAYER_NAMES_MAX) throw invalid(`it makes more than ${LAYER_NAMES_MAX} names`);
    return new Node(kind);
  }

  /** A node goes; with everything below it. */
  #drop(node: Node): void {
    if (node.inode >= 0) this.#onReplaced();
    for (const child of node.children?.values() ?? []) this.#drop(child);
  }
}

/** Components, without what means nothing. Throws when the name leads out of the layer. */
export function cleanPath(name: string): string[] {
  if (name.length > TAR_PATH_BYTES_MAX) throw invalid(`${printable(name)} is too long`);
  const components: string[] = [];
  for (const component of name.split('/')) {
    if (component === '' || component === '.') continue;
    if (component === '..') {
      if (components.pop() === undefined) throw invalid(`${printable(name)} leads out of the layer`);
      continue;
    }
    if (component.length > TAR_NAME_BYTES_MAX)
      throw invalid(`${printable(component)} is too long for a name`);
    components.push(component);
  }
  return components;
}

export function invalid(why: string): ImageError {
  return new ImageError('ERR_ARCBOX_LAYER_INVALID', `the layer is not valid: ${why}`);
}
