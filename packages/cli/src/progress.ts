/**
 * Progress of layers: on a terminal one line for each that is drawn over, with a bar; elsewhere a line for each thing that
 * happened, so that a log can be read.
 */
import { put } from './output.ts';
import { decimalSize } from './size.ts';

export interface ProgressLine {
  readonly id?: string;
  readonly status?: string;
  readonly current?: string;
  readonly total?: string;
}

const BAR_WIDTH = 40;
const COLUMNS_DEFAULT = 80;
const CLEAR_LINE = '\x1b[2K\r';

export class ProgressDisplay {
  readonly #stream: NodeJS.WriteStream;
  readonly #drawn: boolean;
  /** In the order in which they came; the value is what the line says. */
  readonly #lines = new Map<string, string>();
  readonly #told = new Map<string, string>();

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream;
    this.#drawn = stream.isTTY === true;
  }

  show(line: ProgressLine): void {
    const { id = '', status = '' } = line;
    if (!this.#drawn) {
      // How far something has come is no news; that it begins or ends is.
      if (this.#told.get(id) === status) return;
      this.#told.set(id, status);
      put(this.#stream, id === '' ? `${status}\n` : `${id}: ${status}\n`);
      return;
    }
    if (id === '') {
      this.#lines.clear();
      put(this.#stream, `${status}\n`);
      return;
    }
    const text = this.#fit(`${id}: ${status}${bar(line)}`);
    if (this.#lines.get(id) === text) return;
    const isNew = !this.#lines.has(id);
    this.#lines.set(id, text);
    if (isNew) {
      put(this.#stream, `${text}\n`);
      return;
    }
    const up = this.#lines.size - [...this.#lines.keys()].indexOf(id);
    // It has left the screen at the top, where no cursor gets.
    if (up >= (this.#stream.rows || Number.POSITIVE_INFINITY)) return;
    put(this.#stream, `\x1b[${up}A${CLEAR_LINE}${text}\x1b[${up}B\r`);
  }

  /** A line that is longer than the terminal is wide would be two. */
  #fit(text: string): string {
    return text.slice(0, (this.#stream.columns || COLUMNS_DEFAULT) - 1);
  }
}

function bar({ current, total }: ProgressLine): string {
  if (current === undefined) return '';
  const done = Number(current);
  const all = Number(total ?? 0);
  if (all === 0) return `  ${decimalSize(done)}`;
  const filled = Math.min(BAR_WIDTH, Math.floor((done / all) * BAR_WIDTH));
  const arrow = filled < BAR_WIDTH ? '>' : '';
  return ` [${`${'='.repeat(filled)}${arrow}`.padEnd(BAR_WIDTH)}] ${decimalSize(done)}/${decimalSize(all)}`;
}
