/** Sliders with a number beside them, and other fields of the form. */
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { STEPS_OF_TARGET } from "../state/form.js";

interface TargetProps {
  label: string;
  colour: string;
  value: number | null;
  onChange: (value: number | null) => void;
}

/** A target from 0 to 1 in steps of 1/63, or none: the number is taken away. */
export function TargetSlider({ label, colour, value, onChange }: TargetProps) {
  const take = (event: { currentTarget: HTMLInputElement }) =>
    onChange(Number(event.currentTarget.value) / STEPS_OF_TARGET);
  return (
    <span class={`target ${value === null ? "none" : ""}`} style={{ "--c": colour }}>
      <input
        type="range"
        min={0}
        max={STEPS_OF_TARGET}
        step={1}
        value={Math.round((value ?? 0) * STEPS_OF_TARGET)}
        aria-label={label}
        aria-valuetext={value?.toFixed(2) ?? "none"}
        onInput={take}
        // Where it stands already it does not move.
        onClick={(event) => value === null && take(event)}
      />
      <NumberField
        label={`${label}, as a number`}
        value={value}
        min={0}
        max={1}
        step={0.01}
        onChange={onChange}
        onEmpty={() => onChange(null)}
      />
    </span>
  );
}

interface NumberProps {
  id?: string;
  label?: string;
  value: number | null;
  min: number;
  max: number;
  step: number;
  onChange: (value: number) => void;
  /** Where there may be none: told when the number is taken away. */
  onEmpty?: () => void;
  disabled?: boolean;
}

/** A number with three digits behind its point at most; large ones are whole, and stay as they are. */
export function shortNumber(value: number): string {
  return String(Number.isInteger(value) ? value : Math.round(value * 1000) / 1000);
}

/** A number that may be typed; what is none, or out of range, is put right when the field is left. */
export function NumberField({ id, label, value, min, max, step, onChange, onEmpty, disabled }: NumberProps) {
  const short = value === null ? "" : step === 0.01 ? value.toFixed(2) : shortNumber(value);
  const [typed, setTyped] = useState<string | null>(null);
  return (
    <input
      id={id}
      type="text"
      inputMode="decimal"
      class="number"
      aria-label={label}
      disabled={disabled}
      placeholder={onEmpty && "none"}
      title={onEmpty && "Empty: none, the model is told nothing of this reward"}
      value={typed ?? short}
      onInput={(event) => {
        const text = event.currentTarget.value;
        setTyped(text);
        if (text.trim() === "") onEmpty?.();
        const number = Number(text.replace(",", "."));
        if (text.trim() !== "" && number >= min && number <= max && (step < 1 || Number.isInteger(number)))
          onChange(number);
      }}
      onBlur={(event) => {
        const number = Number(event.currentTarget.value.replace(",", "."));
        if (typed !== null && Number.isFinite(number) && typed.trim() !== "") {
          const inside = Math.min(max, Math.max(min, number));
          onChange(step < 1 ? inside : Math.round(inside));
        }
        setTyped(null);
      }}
    />
  );
}

interface SliderProps {
  label: string;
  value: number;
  min: number;
  max: number;
  step: number;
  onChange: (value: number) => void;
  /** Most that can be typed, where that is more than the slider's end. */
  most?: number;
  disabled?: boolean;
  help?: string;
  children?: ComponentChildren;
}

/** A slider of the sampling settings. */
export function Slider({ label, value, min, max, step, onChange, most, disabled, help, children }: SliderProps) {
  const id = useId();
  return (
    <div class="field">
      <div class="field-head">
        <label for={id}>{label}</label>
        {children}
        <NumberField
          value={value}
          min={min}
          max={most ?? max}
          step={step < 1 ? 0.001 : 1}
          onChange={onChange}
          label={`${label}, as a number`}
          {...(disabled !== undefined && { disabled })}
        />
      </div>
      <input
        id={id}
        type="range"
        min={min}
        max={max}
        step={step}
        value={value}
        disabled={disabled}
        aria-describedby={help === undefined ? undefined : `${id}-help`}
        onInput={(event) => onChange(Number(event.currentTarget.value))}
      />
      {help !== undefined && (
        <p id={`${id}-help`} class="help">
          {help}
        </p>
      )}
    </div>
  );
}

interface ChoiceProps<T extends string> {
  label: string;
  value: T;
  /** What may be chosen, and how it is called. */
  choices: readonly (readonly [value: T, name: string])[];
  onChange: (value: T) => void;
  children?: ComponentChildren;
}

/** One of a few values. */
export function Choice<T extends string>({ label, value, choices, onChange, children }: ChoiceProps<T>) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <select id={id} value={value} onChange={(event) => onChange(event.currentTarget.value as T)}>
        {choices.map(([value, name]) => (
          <option key={value} value={value}>
            {name}
          </option>
        ))}
      </select>
      {children}
    </div>
  );
}

interface FileButtonProps {
  /** Of the field behind the button. */
  label: string;
  class: string;
  onFile: (file: File) => void;
  children: ComponentChildren;
}

/** A button that asks for a picture file. */
export function FileButton({ label, class: name, onFile, children }: FileButtonProps) {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <input
        ref={input}
        type="file"
        accept="image/*"
        class="hidden"
        aria-label={label}
        tabIndex={-1}
        onChange={(event) => {
          const file = event.currentTarget.files?.[0];
          event.currentTarget.value = ""; // the same one may be chosen again
          if (file) onFile(file);
        }}
      />
      <button type="button" class={name} onClick={() => input.current!.click()}>
        {children}
      </button>
    </>
  );
}

/** The time, told anew while something runs. */
export function useNow(running: boolean): number {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    if (!running) return;
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, [running]);
  return now;
}
