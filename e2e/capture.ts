/** A capture of what passes between a machine and our network stack, read by tshark. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import type { Arcbox } from './support.ts';

const CHECKED = ['ip', 'tcp', 'udp'];
/** What our stack makes or reads. What is inside is other people's: tshark guesses it by ports and by how it begins. */
const OURS = new Set(
  'frame eth ethertype vlan arp ip ipv6 icmp icmpv6 tcp udp dns dhcp dhcpv6 _ws.malformed _ws.expert'.split(
    ' ',
  ),
);
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;

/** Asked for at the end of a capture: once the answer is in the file, so is everything before it. */
const LAST_NAME = 'capture-ends-here';
const LAST_TRIES = 20;

export class NetworkCapture {
  readonly #arcbox: Arcbox;
  readonly #child: ChildProcess;
  readonly #file: string;

  private constructor(arcbox: Arcbox, child: ChildProcess, file: string) {
    this.#arcbox = arcbox;
    this.#child = child;
    this.#file = file;
  }

  /** Of one container, or of the default machine; it is on when this resolves. */
  static async start(arcbox: Arcbox, name: string, container?: string): Promise<NetworkCapture> {
    const file = path.join(arcbox.home, `${name}.pcapng`);
    const words = ['network', 'capture', '-w', file, ...(container === undefined ? [] : [container])];
    const child = arcbox.spawn(words, { input: '' });
    let said = '';
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      said += text;
      if (said.includes('^C')) resolve();
    });
    child.once('close', () => reject(new Error(`the capture ended: ${said}`)));
    await promise;
    return new NetworkCapture(arcbox, child, file);
  }

  /** Ends it when everything that `container` has sent and received up to now is in the file. */
  async stop(container: string): Promise<void> {
    for (let tried = 0, waitMs = 1; !this.#hasLast(); tried += 1, waitMs = Math.min(waitMs * 2, 1000)) {
      assert.ok(tried < LAST_TRIES, `the frames of ${container} are not in ${this.#file}`);
      // There is no such name; that is an answer.
      await this.#arcbox.run(['exec', container, 'ping', '-c', '1', `${LAST_NAME}.arcbox.local`]);
      await new Promise((resolve) => setTimeout(resolve, waitMs));
    }
    const exit = once(this.#child, 'close');
    this.#child.kill('SIGINT');
    assert.deepEqual(await exit, [0, null]);
  }

  /** In a question and in its answer. */
  #hasLast(): boolean {
    const data = readFileSync(this.#file);
    const first = data.indexOf(LAST_NAME);
    return first >= 0 && data.includes(LAST_NAME, first + 1);
  }

  /** Lines of the packets that a display filter matches. All checksums are checked. */
  async read(filter: string, without: readonly string[] = []): Promise<string[]> {
    // A body is read as it passes, not put together first: that is what takes time.
    const options = [
      ...CHECKED.map((protocol) => `${protocol}.check_checksum:TRUE`),
      'http.desegment_body:FALSE',
    ].flatMap((option) => ['-o', option]);
    const disabled = without.flatMap((protocol) => ['--disable-protocol', protocol]);
    return await tshark('-r', this.#file, ...options, ...disabled, '-Y', filter);
  }

  /** Packets that are malformed up to the layers that are ours, or whose checksum is bad: there must be none. */
  async broken(): Promise<string[]> {
    const protocols = (await tshark('-G', 'protocols')).map((line) => line.split('\t')[2] ?? '');
    for (const protocol of OURS) assert.ok(protocols.includes(protocol), `tshark has no ${protocol}`);
    const checksums = ['ip', 'tcp', 'udp', 'icmp', 'icmpv6'].map(
      (protocol) => `${protocol}.checksum.status == 0`,
    );
    return await this.read(
      [
        '_ws.malformed',
        '_ws.expert.group == "Malformed"',
        '_ws.expert.group == "Checksum"',
        ...checksums,
      ].join(' || '),
      protocols.filter((protocol) => !OURS.has(protocol)),
    );
  }
}

async function tshark(...args: string[]): Promise<string[]> {
  const { stdout } = await promisify(execFile)('tshark', args, { maxBuffer: OUTPUT_BYTES_MAX });
  return stdout.split('\n').filter((line) => line !== '');
}
