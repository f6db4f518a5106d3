import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CliError } from '../src/errors.ts';
import { align } from '../src/listing.ts';
import { compileTemplate, goMap } from '../src/template/evaluate.ts';

const value = {
  Name: '/box',
  Count: 3,
  State: { Running: true, ExitCode: 0 },
  Config: { Env: ['A=1', 'B=2'], Labels: goMap({ one: '1', 'a.b': 'dotted' }) },
  Empty: [],
  Nothing: null,
  Label: (name: unknown) => `<${String(name)}>`,
};

const run = (source: string): string => compileTemplate(source)(value);

test('what docker’s users write', () => {
  const table: readonly [string, string][] = [
    ['{{.Name}}', '/box'],
    ['{{ .State.Running }}', 'true'],
    ['{{json .Config.Env}}', '["A=1","B=2"]'],
    ['{{json .State}}', '{"Running":true,"ExitCode":0}'],
    ['{{.Config.Env}}', '[A=1 B=2]'],
    ['{{.Config.Labels}}', 'map[a.b:dotted one:1]'],
    ['{{.Nothing}}', '<nil>'],
    ['{{.Config.Labels.none}}', '<no value>'],
    ['{{index .Config.Labels "a.b"}}', 'dotted'],
    ['{{index .Config.Env 1}}', 'B=2'],
    ['{{.Label "x"}}', '<x>'],
    ['{{len .Config.Env}}', '2'],
    ['{{if .State.Running}}up{{else}}down{{end}}', 'up'],
    ['{{if eq .State.ExitCode 1}}one{{else if eq .Count 3}}three{{else}}none{{end}}', 'three'],
    ['{{if and .State.Running (gt .Count 2)}}yes{{end}}', 'yes'],
    ['{{if not .Empty}}empty{{end}}', 'empty'],
    ['{{range .Config.Env}}[{{.}}]{{end}}', '[A=1][B=2]'],
    ['{{range $i, $e := .Config.Env}}{{$i}}={{$e}};{{end}}', '0=A=1;1=B=2;'],
    ['{{range $k, $v := .Config.Labels}}{{$k}}:{{$v}} {{end}}', 'a.b:dotted one:1 '],
    ['{{range .Empty}}x{{else}}none{{end}}', 'none'],
    ['{{range .Config.Env}}{{if eq . "B=2"}}{{break}}{{end}}{{.}}{{end}}', 'A=1'],
    ['{{with .State}}{{.ExitCode}}{{end}}', '0'],
    ['{{with .Empty}}x{{else}}y{{end}}', 'y'],
    ['{{$n := .Name}}{{range .Config.Env}}{{$n}}{{$.Count}}{{end}}', '/box3/box3'],
    ['{{.Name | upper | printf "%s!"}}', '/BOX!'],
    ['{{join .Config.Env ","}}', 'A=1,B=2'],
    ['{{range (split "a,b" ",")}}{{.}}-{{end}}', 'a-b-'],
    ['{{slice .Name 1}} {{truncate .Name 2}} {{title "ab cd"}}', 'box /b Ab Cd'],
    ['{{printf "%-5s|%05d|%q|%v|%.1f%%" "a" 42 "b" true 1.25}}', 'a    |00042|"b"|true|1.3%'],
    ['a {{- .Count -}} b', 'a3b'],
    ['{{/* says nothing */}}x', 'x'],
    ['{{"}}"}}{{`{{`}}', '}}{{'],
    ['no action', 'no action'],
  ];
  for (const [source, expected] of table) assert.equal(run(source), expected, source);
});

test('what is not understood says so', () => {
  const table: readonly [string, RegExp][] = [
    ['{{.Nosuch}}', /there is no field Nosuch; there are Config, Count/],
    ['{{.Name', /\{\{ without \}\}/],
    ['{{if .Name}}x', /\{\{if\}\} without \{\{end\}\}/],
    ['{{end}}', /\{\{end\}\} without a beginning/],
    ['{{nosuch .Name}}', /there is no function nosuch; there are and,/],
    ['{{define "x"}}{{end}}', /\{\{define\}\} is not supported/],
    ['{{index .Config.Env 7}}', /outside/],
    ['{{$x}}', /\$x is not set/],
    ['{{.Name ;}}', /";"/],
    ['{{}}', /nothing in it/],
    ['{{.Name.First}}', /no field First/],
    ['{{range .Name}}{{end}}', /neither a list nor a map/],
  ];
  for (const [source, message] of table) {
    assert.throws(
      () => run(source),
      (error) => error instanceof CliError && message.test(error.message),
      source,
    );
  }
});

test('any text is a template, or refused as one that is not', () => {
  const piece = fc.constantFrom(
    '{{',
    '}}',
    '.Name',
    'if ',
    'end',
    'range ',
    'else',
    '$x',
    ':=',
    ' ',
    '"',
    '|',
    'len',
    '(',
    ')',
    '-',
    'a',
    '.',
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
      try {
        run(pieces.join(''));
      } catch (error) {
        assert.ok(error instanceof CliError, String(error));
      }
    }),
    { numRuns: 2000, seed: 20_26 },
  );
});

test('columns are aligned, ten characters at least, the last one as long as it is', () => {
  assert.deepEqual(align(['A\tB\tC', 'one\tlonger than ten\tx']), [
    'A         B                 C',
    'one       longer than ten   x',
  ]);
});
