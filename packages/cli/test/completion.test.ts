import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const LAUNCHER = fileURLToPath(new URL('../../../arcbox', import.meta.url));
const PROGRAMS = {
  bash: (script: string, words: readonly string[]) =>
    `source ${script}; COMP_WORDS=(${words.map(quote).join(' ')}); COMP_CWORD=${words.length - 1}; _arcbox; printf '%s\\n' "\${COMPREPLY[@]}"`,
  zsh: (script: string, words: readonly string[]) =>
    `compdef() { :; }; _files() { :; }; _describe() { print -rl -- \${(P)2} }
     source ${script}; words=(${words.map(quote).join(' ')}); CURRENT=${words.length}; _arcbox`,
  fish: (script: string, words: readonly string[]) =>
    `source ${script}; complete -C ${quote(words.join(' '))}`,
};

let directory: string;
before(() => {
  directory = mkdtempSync(join(tmpdir(), 'arcbox-completion-'));
  for (const shell of Object.keys(PROGRAMS)) {
    const environment = { ...process.env, ARCBOX_HOME: '/nonexistent' };
    const script = execFileSync(LAUNCHER, ['completion', shell], { env: environment });
    writeFileSync(join(directory, shell), script);
  }
  // What the shells ask for the names of containers.
  writeFileSync(
    join(directory, 'arcbox'),
    [
      '#!/bin/sh',
      'case "$*" in',
      'ps*.Names*) printf "web\\ndb\\n" ;;',
      'machine*) echo builder ;;',
      'network*) echo lan ;;',
      'volume*) echo data ;;',
      'images*) printf "app:one\\napp:two\\n" ;;',
      'esac\n',
    ].join('\n'),
  );
  chmodSync(join(directory, 'arcbox'), 0o755);
});
after(() => rmSync(directory, { recursive: true }));

function quote(text: string): string {
  return `'${text}'`;
}

/** What is offered, without descriptions. */
function offers(shell: keyof typeof PROGRAMS, words: readonly string[]): string[] {
  const program = PROGRAMS[shell](join(directory, shell), words);
  const output = execFileSync(shell, shell === 'bash' ? ['--norc', '-c', program] : ['-c', program], {
    encoding: 'utf8',
    env: { ...process.env, PATH: `${directory}:${process.env.PATH}`, HOME: directory, ZDOTDIR: directory },
  });
  const last = words.at(-1) ?? '';
  // Zsh has a colon before the description, and one of the word itself is escaped.
  const end = shell === 'zsh' ? /(?<!\\):/ : /\t/;
  const found = output.split('\n').map((line) => (line.split(end)[0] ?? '').replaceAll('\\:', ':'));
  return found.filter((word) => word !== '' && word.startsWith(last)).sort();
}

for (const shell of ['bash', 'zsh', 'fish'] as const) {
  test(`${shell}: commands, commands of commands, options, and names of containers`, () => {
    assert.deepEqual(offers(shell, ['arcbox', 'pa']), ['pause']);
    assert.ok(offers(shell, ['arcbox', '']).includes('completion'));
    assert.deepEqual(offers(shell, ['arcbox', 'machine', 'st']), ['start', 'stop']);
    assert.deepEqual(offers(shell, ['arcbox', 'run', '--cap-']), ['--cap-add', '--cap-drop']);
    assert.deepEqual(offers(shell, ['arcbox', 'exec', '-i', 'w']), ['web']);
    assert.deepEqual(offers(shell, ['arcbox', 'machine', 'rm', 'b']), ['builder']);
    assert.deepEqual(
      offers(shell, ['arcbox', 'stop', '']).filter((word) => !word.startsWith('-')),
      ['db', 'web'],
    );
    const names = (...words: string[]): string[] =>
      offers(shell, ['arcbox', ...words]).filter((word) => !word.startsWith('-'));
    assert.deepEqual(names('network', 'connect', ''), ['lan']);
    assert.deepEqual(names('network', 'connect', '--ip', '10.0.0.9', 'lan', ''), ['db', 'web']);
    assert.deepEqual(names('volume', 'rm', 'other', ''), ['data']);
    assert.deepEqual(names('container', 'rm', '-f', 'w'), ['web']);
    assert.deepEqual(names('rmi', 'app'), ['app:one', 'app:two']);
    // For bash a colon ends a word, and what stands before it is there already.
    if (shell === 'bash') assert.deepEqual(names('tag', 'app', ':', 't'), ['two']);
    else assert.deepEqual(names('tag', 'app:t'), ['app:two']);
    assert.ok(!names('tag', 'app:two', '').includes('app:one'), 'any name will do');
    assert.ok(['db', 'web', 'data', 'lan'].every((word) => names('inspect', '').includes(word)));
  });
}

test('a shell that there is none for is refused', () => {
  assert.throws(
    () =>
      execFileSync(LAUNCHER, ['completion', 'tcsh'], {
        stdio: 'pipe',
        env: { ...process.env, ARCBOX_HOME: '/nonexistent' },
      }),
    /there is one for bash, zsh, fish/,
  );
});
